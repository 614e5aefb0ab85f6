"""The views that the student compares: masked views, and crops of those.

Shape legend: B images, N masks, V views of each image, C channels, H x W pixels, S crop side.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.config.model import Fill

#: Share of a view's area and width-to-height ratio that a crop may have (Chen et al. 2020 use
#: areas down to 0.08; a masked view has less left to show).
CROP_AREA = (0.25, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
#: Standard deviation of the blur, and how far its kernel reaches, as shares of the image's side:
#: wide enough that no nucleus is left to see at the scales that runs train at.
BLUR, BLUR_REACH = 1 / 16, 3 / 16


def apply_masks(
    images_BCHW: Tensor,
    masks_BNHW: Tensor,
    fill: Fill = "zero",
    *,
    with_clean: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Put a fill f in the place of each mask's region: x * (1 - m_i) + f * m_i.

    Args:
        images_BCHW: Normalised images.
        masks_BNHW: Their masks.
        fill: What stands in the hole; see `hole`.
        with_clean: Put the images as they are before the others; one write for all views.
        generator: Source of noise, on any device; absent: torch's own.

    Returns:
        (N*B, C, H, W) views, all images of the first mask first; ((1+N)*B, C, H, W) with the clean
        ones.
    """
    if fill != "zero":
        gap_BCHW = images_BCHW - hole(images_BCHW, fill, generator)
        hidden_NBCHW = masks_BNHW.transpose(0, 1).unsqueeze(2).to(images_BCHW.dtype)
        if with_clean:
            hidden_NBCHW = torch.cat([torch.zeros_like(hidden_NBCHW[:1]), hidden_NBCHW])
        return (images_BCHW - gap_BCHW * hidden_NBCHW).flatten(0, 1)
    shown_NBCHW = (1 - masks_BNHW).transpose(0, 1).unsqueeze(2)
    if with_clean:
        shown_NBCHW = torch.cat([torch.ones_like(shown_NBCHW[:1]), shown_NBCHW])
    return (images_BCHW * shown_NBCHW.to(images_BCHW.dtype)).flatten(0, 1)


def hole(images_BCHW: Tensor, fill: Fill, generator: torch.Generator | None = None) -> Tensor:
    """What stands where a mask hides an image wholly.

    Args:
        images_BCHW: Normalised images.
        fill: ``zero`` (the mean colour of the data), ``mean`` (that of each image), ``blur`` (each
            image through a Gaussian) or ``noise`` (Gaussian, with each image's mean and spread in
            every channel; the same for all masks of an image).
        generator: Source of noise, on any device; absent: torch's own, of which each rank has
            another.

    Returns:
        (B, C, H, W), or what broadcasts to it.
    """
    if fill == "zero":
        return images_BCHW.new_zeros(())
    if fill == "blur":
        return _blurred(images_BCHW)
    spread, mean = torch.std_mean(images_BCHW, dim=(2, 3), correction=0, keepdim=True)
    if fill == "mean":
        return mean
    source = generator.device if generator else images_BCHW.device
    noise_BCHW = torch.randn(
        images_BCHW.shape, generator=generator, device=source, dtype=images_BCHW.dtype
    )
    return mean + spread * noise_BCHW.to(images_BCHW.device)


def _blurred(images_BCHW: Tensor) -> Tensor:
    """Through a Gaussian, rows and columns one after the other; the image is mirrored outside."""
    side = min(images_BCHW.shape[2:])
    reach = max(1, int(BLUR_REACH * side))
    places = torch.arange(-reach, reach + 1, device=images_BCHW.device, dtype=images_BCHW.dtype)
    kernel = (-((places / (BLUR * side)) ** 2) / 2).exp()
    kernel = kernel / kernel.sum()
    padded = F.pad(images_BCHW.flatten(0, 1).unsqueeze(1), [reach] * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1)).view_as(images_BCHW)


def random_crops(
    views_BCHW: Tensor,
    crop_size: int,
    generator: torch.Generator | None = None,
    crop_area: tuple[float, float] = CROP_AREA,
) -> Tensor:
    """One random resized crop of every view, resampled on its device.

    Args:
        views_BCHW: Views of any count.
        crop_size: Side of the crops in pixels.
        generator: Source of the places, on any device; absent: torch's own.
        crop_area: Least and largest share of a view's area.

    Returns:
        (B, C, S, S) crops, bilinear.
    """
    num_views, device = len(views_BCHW), generator.device if generator else views_BCHW.device
    area = torch.empty(num_views, device=device).uniform_(*crop_area, generator=generator)
    narrow, wide = (math.log(ratio) for ratio in CROP_RATIO)
    ratio = torch.empty(num_views, device=device).uniform_(narrow, wide, generator=generator).exp()
    extent_B2 = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
    places_B2 = torch.rand(num_views, 2, device=device, generator=generator) * 2 - 1
    centre_B2 = places_B2 * (1 - extent_B2)
    boxes_B23 = torch.cat([torch.diag_embed(extent_B2), centre_B2.unsqueeze(2)], dim=2)
    shape = [num_views, views_BCHW.shape[1], crop_size, crop_size]
    grid = F.affine_grid(boxes_B23.to(views_BCHW.device), shape, align_corners=False)
    return F.grid_sample(views_BCHW, grid.to(views_BCHW.dtype), align_corners=False)
