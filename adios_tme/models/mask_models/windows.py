"""Blended windows over an image that is larger than a model's own, and mirrored borders.

Shape legend: N masks, C channels, H x W pixels, S side of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.models.layers import unit_range

#: Share of a window's side by which neighbours overlap at least.
OVERLAP = 0.5
#: Windows in one forward pass; on a CPU more take more memory, and no less time.
BATCH, CPU_BATCH = 16, 8
#: An image is large where its longer side is more than so many sides of the model's own images.
LARGE = 2


def is_large(height: int, width: int, side: int) -> bool:
    """Whether an image is looked at through windows rather than shrunk to the model's side."""
    return max(height, width) > LARGE * side


def masks_by_windows(
    draw: Callable[[Tensor], Tensor], image_1CHW: Tensor, side: int, scale: float = 1.0
) -> Tensor:
    """Masks of one image, from overlapping windows that are each weighted towards their middle.

    Beside the image and its masks, `windows_at_once` windows are in memory at a time.

    Args:
        draw: Masks (B, N, S, S) of windows (B, 3, S, S) from 0 to 1.
        image_1CHW: uint8, or floating point from 0 to 1; mirrored where it is smaller than S.
        side: S in pixels.
        scale: Factor by which the image is resized before windows are taken.

    Returns:
        Masks (1, N, H, W) at the image's size.
    """
    size = image_1CHW.shape[-2:]
    image = unit_range(image_1CHW)
    if scale != 1:
        scaled = [max(1, round(length * scale)) for length in size]
        image = F.interpolate(image, scaled, mode="bicubic", antialias=True).clamp(0, 1)
    shown = image.shape[-2:]
    image = mirror_to(image, max(side, shown[0]), max(side, shown[1]))
    masks = _blend(draw, image, side)[..., : shown[0], : shown[1]]
    if masks.shape[-2:] != size:
        masks = F.interpolate(masks, size, mode="bilinear", antialias=True)
    return masks


def _blend(draw: Callable[[Tensor], Tensor], image_1CHW: Tensor, side: int) -> Tensor:
    """Draw masks in every window, and average them where windows overlap."""
    height, width = image_1CHW.shape[-2:]
    corners = [
        (top, left) for top in window_starts(height, side) for left in window_starts(width, side)
    ]
    weight = _window_weight(side, image_1CHW.device)
    total, weights = None, torch.zeros_like(image_1CHW[:, :1])
    num_at_once = windows_at_once(image_1CHW.device)
    for first in range(0, len(corners), num_at_once):
        some = corners[first : first + num_at_once]
        windows = [image_1CHW[0, :, top : top + side, left : left + side] for top, left in some]
        for (top, left), masks_NSS in zip(some, draw(torch.stack(windows)), strict=True):
            if total is None:
                total = masks_NSS.new_zeros(1, len(masks_NSS), height, width)
            total[0, :, top : top + side, left : left + side] += masks_NSS * weight
            weights[0, :, top : top + side, left : left + side] += weight
    assert total is not None
    blended: Tensor = total.div_(weights)  # in place: large images have little room beside them
    return blended


def windows_at_once(device: torch.device) -> int:
    """Windows in one forward pass."""
    return CPU_BATCH if device.type == "cpu" else BATCH


def window_starts(length: int, side: int) -> list[int]:
    """Where windows begin along an axis, evenly spread and overlapping by half or more."""
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def mirror_to(images_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Extend images below and on the right, mirrored where there is enough to mirror."""
    shown = images_BCHW.shape[-2:]
    below, right = height - shown[0], width - shown[1]
    if not below and not right:
        return images_BCHW
    mode = "reflect" if below < shown[0] and right < shown[1] else "replicate"
    return F.pad(images_BCHW, (0, right, 0, below), mode=mode)


def _window_weight(side: int, device: torch.device) -> Tensor:
    """A hill over a window, lowest at its borders and above zero everywhere."""
    ramp = torch.hann_window(side + 2, periodic=False, device=device)[1:-1]
    return ramp[:, None] * ramp[None] + 1e-3
