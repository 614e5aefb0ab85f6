"""Antialiased resizing as two matrix products, for graphs that any runtime computes alike.

ONNX has an antialiased resize, but not every runtime does it, nor with the same numbers. Rows and
columns are resized one after the other, so that a matrix for each of them says all of it. Sizes may
be unknown while a graph is traced: nothing here depends on a value.

Shape legend: B images, C channels, H x W pixels, h x w pixels after it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Weight of a pixel at a distance, in pixels of the coarser side.
Kernel = Callable[[Tensor], Tensor]


def triangle(distance: Tensor) -> Tensor:
    """The kernel of ``bilinear``."""
    return (1 - distance.abs()).clamp(min=0)


def cubic(distance: Tensor) -> Tensor:
    """The kernel of ``bicubic`` with antialiasing (Keys 1981, a = -1/2)."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((2.5 - 0.5 * x) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resample(images_BCHW: Tensor, height: int, width: int, kernel: Kernel) -> Tensor:
    """Resize as ``torch.nn.functional.interpolate(..., antialias=True)`` does.

    Args:
        images_BCHW: float32.
        height: Wanted, in pixels.
        width: Wanted, in pixels.
        kernel: `triangle` for ``bilinear``, `cubic` for ``bicubic``.

    Returns:
        (B, C, h, w); the very same numbers where the size stays as it is.
    """
    rows_hH = resampling_matrix(images_BCHW.shape[2], height, kernel)
    columns_wW = resampling_matrix(images_BCHW.shape[3], width, kernel)
    return rows_hH @ (images_BCHW @ columns_wW.T)


def resampling_matrix(old: int, new: int, kernel: Kernel) -> Tensor:
    """Weights (new, old) of the old pixels in each new one; each row adds up to one.

    The numbers are rounded where torch rounds them: in float32, in the same order.
    """
    scale = torch.full((), old, dtype=torch.float32) / new
    centres = (torch.arange(new, dtype=torch.float32) + 0.5) * scale
    places = torch.arange(old, dtype=torch.float32) + 0.5
    # A shrinking kernel is stretched over the old pixels; an enlarging one is not.
    weights = kernel((places[None] - centres[:, None]) / scale.clamp(min=1))
    return weights / weights.sum(1, keepdim=True)
