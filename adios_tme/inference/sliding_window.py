"""Masks of images of any size, as a whole or window by window.

Shape legend: N masks, H x W pixels, S side of the model's images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.models.generator import MaskGenerator

#: Share of a window's side by which neighbours overlap at least.
OVERLAP = 0.5
#: Windows in one forward pass.
BATCH = 16

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From RGB (H, W, 3) to soft masks (N, H, W)."""


@dataclass(frozen=True)
class MaskPredictor:
    """A mask model looking at images.

    Args:
        generator: The model.
        windows: Look through windows of the model's size instead of at the whole image shrunk to
            it; None takes windows where an image is more than twice as large.
        zoom: Factor by which images are resized before windows are taken.
    """

    generator: MaskGenerator
    windows: bool | None = None
    zoom: float = 1.0

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Masks (N, H, W) of an RGB image (H, W, 3); they add up to one over N."""
        device = self.generator.normalise.mean.device
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0).to(device)
        windows = self.windows
        if windows is None:
            windows = max(pixels.shape[:2]) > 2 * self.generator.img_size
        drawn = self._by_windows(image) if windows else self.generator(image)
        masks: NDArray[np.float32] = drawn[0].cpu().numpy()
        return masks

    def _by_windows(self, image_1CHW: Tensor) -> Tensor:
        """Blend overlapping windows, each weighted towards its middle."""
        size = image_1CHW.shape[-2:]
        side = self.generator.img_size
        image = image_1CHW.float() / 255
        if self.zoom != 1:
            zoomed = [max(1, round(length * self.zoom)) for length in size]
            image = F.interpolate(image, zoomed, mode="bicubic", antialias=True).clamp(0, 1)
        shown = image.shape[-2:]
        image = _pad(image, side)
        places = [
            (top, left)
            for top in window_starts(image.shape[-2], side)
            for left in window_starts(image.shape[-1], side)
        ]
        weight = _window_weight(side, image.device)
        total, weights = None, torch.zeros_like(image[:, :1])
        for first in range(0, len(places), BATCH):
            some = places[first : first + BATCH]
            windows = [image[0, :, top : top + side, left : left + side] for top, left in some]
            for (top, left), masks_NSS in zip(
                some, self.generator(torch.stack(windows)), strict=True
            ):
                if total is None:
                    total = image.new_zeros(1, len(masks_NSS), *image.shape[-2:])
                total[0, :, top : top + side, left : left + side] += masks_NSS * weight
                weights[0, :, top : top + side, left : left + side] += weight
        assert total is not None
        masks = (total / weights)[..., : shown[0], : shown[1]]
        if masks.shape[-2:] != size:
            masks = F.interpolate(masks, size, mode="bilinear", antialias=True)
        return masks


def window_starts(length: int, side: int) -> list[int]:
    """Where windows begin along an axis, evenly spread and overlapping by half or more."""
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _pad(image_1CHW: Tensor, side: int) -> Tensor:
    """Bring a small image to the window's size, mirrored where there is enough to mirror."""
    height, width = image_1CHW.shape[-2:]
    below, right = max(0, side - height), max(0, side - width)
    if not below and not right:
        return image_1CHW
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(image_1CHW, (0, right, 0, below), mode=mode)


def _window_weight(side: int, device: torch.device) -> Tensor:
    """A hill over a window, lowest at its borders and above zero everywhere."""
    ramp = torch.hann_window(side + 2, periodic=False, device=device)[1:-1]
    return ramp[:, None] * ramp[None] + 1e-3
