"""The views that the student compares: masked views, and crops of those.

Shape legend: B images, N masks, V views of each image, C channels, H x W pixels, S crop side.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Share of a view's area and width-to-height ratio that a crop may have (Chen et al. 2020 use
#: areas down to 0.08; a masked view has less left to show).
CROP_AREA = (0.25, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


def apply_masks(images_BCHW: Tensor, masks_BNHW: Tensor, *, with_clean: bool = False) -> Tensor:
    """Remove each mask's region from the normalised images: x * (1 - m_i).

    Args:
        images_BCHW: Normalised images.
        masks_BNHW: Their masks.
        with_clean: Put the images as they are before the others; one write for all views.

    Returns:
        (N*B, C, H, W) views, all images of the first mask first; ((1+N)*B, C, H, W) with the clean
        ones.
    """
    shown_NBCHW = (1 - masks_BNHW).transpose(0, 1).unsqueeze(2)
    if with_clean:
        shown_NBCHW = torch.cat([torch.ones_like(shown_NBCHW[:1]), shown_NBCHW])
    return (images_BCHW * shown_NBCHW.to(images_BCHW.dtype)).flatten(0, 1)


def random_crops(views_BCHW: Tensor, crop_size: int) -> Tensor:
    """One random resized crop of every view, drawn and resampled on its device.

    Args:
        views_BCHW: Views of any count.
        crop_size: Side of the crops in pixels.

    Returns:
        (B, C, S, S) crops, bilinear.
    """
    num_views, device = len(views_BCHW), views_BCHW.device
    area = torch.empty(num_views, device=device).uniform_(*CROP_AREA)
    narrow, wide = (math.log(ratio) for ratio in CROP_RATIO)
    ratio = torch.empty(num_views, device=device).uniform_(narrow, wide).exp()
    extent_B2 = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
    centre_B2 = (torch.rand(num_views, 2, device=device) * 2 - 1) * (1 - extent_B2)
    boxes_B23 = torch.cat([torch.diag_embed(extent_B2), centre_B2.unsqueeze(2)], dim=2)
    shape = [num_views, views_BCHW.shape[1], crop_size, crop_size]
    grid = F.affine_grid(boxes_B23, shape, align_corners=False)
    return F.grid_sample(views_BCHW, grid.to(views_BCHW.dtype), align_corners=False)
