"""Masks that know nothing of the image they lie on: the controls for learned ones.

Shape legend: B images, N masks, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

#: Cells of coarse noise along an image's side; features are about this part of it wide.
NUM_CELLS = 7


def random_partition(
    area_BN: Tensor, size: Sequence[int], generator: torch.Generator | None = None
) -> Tensor:
    """Split images among binary masks of given areas along smooth random contours.

    Args:
        area_BN: Share of each mask; a row adds up to one.
        size: Height and width in pixels.
        generator: Source of the noise; absent: torch's own.

    Returns:
        (B, N, H, W) float32, one at each pixel for one of the masks; areas are met to a pixel.
    """
    height, width = size
    num_images, device = len(area_BN), area_BN.device
    coarse = torch.randn(
        num_images, 1, NUM_CELLS, NUM_CELLS, device=device, generator=generator, dtype=torch.float32
    )
    smooth = F.interpolate(coarse, [height, width], mode="bicubic").flatten(1)
    # Rank of each pixel in its image, 0 to 1; neighbours in the noise have neighbouring ranks.
    order = smooth.argsort(dim=1)
    places = torch.arange(height * width, device=device).expand(num_images, -1)
    rank = torch.empty_like(smooth).scatter_(1, order, (places + 0.5) / (height * width))
    ends_BN = area_BN.cumsum(dim=1)
    ends_BN[:, -1] = 1
    mask_of_pixel = torch.searchsorted(ends_BN, rank)
    masks = F.one_hot(mask_of_pixel, area_BN.shape[1]).float()
    partition: Tensor = masks.transpose(1, 2).unflatten(2, (height, width))
    return partition


def misplaced(masks_BNHW: Tensor, generator: torch.Generator) -> Tensor:
    """The same masks, each image's moved by a random way around its borders.

    Areas, softness and shapes stay; that a mask lies on what it was drawn for is lost.

    Args:
        masks_BNHW: Masks.
        generator: Source of the ways: a quarter to three quarters of the side, in both directions.
    """
    num_images, _, height, width = masks_BNHW.shape
    device = masks_BNHW.device
    share = torch.rand(2, num_images, 1, device=device, generator=generator) / 2 + 1 / 4
    rows_BH, columns_BW = (
        (torch.arange(length, device=device) + (share[axis] * length).long()) % length
        for axis, length in enumerate((height, width))
    )
    images_B11 = torch.arange(num_images, device=device)[:, None, None]
    # Indexing puts the masks' axis last.
    moved_BHWN = masks_BNHW.permute(0, 2, 3, 1)[
        images_B11, rows_BH[:, :, None], columns_BW[:, None, :]
    ]
    return moved_BHWN.permute(0, 3, 1, 2)
