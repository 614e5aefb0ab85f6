"""Masks of images of any size as arrays, as a whole or window by window.

Shape legend: N masks, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.mask_models.windows import masks_by_windows

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From RGB (H, W, 3) to soft masks (N, H, W)."""


@dataclass(frozen=True)
class MaskPredictor:
    """A mask model looking at images.

    Args:
        generator: The model.
        windows: Look through windows of the model's size instead of at the whole image shrunk to
            it; None: as `MaskGenerator` does, through windows where an image is large.
        zoom: Factor by which images are resized before windows are taken.
    """

    generator: MaskGenerator
    windows: bool | None = None
    zoom: float = 1.0

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Masks (N, H, W) of an RGB image (H, W, 3); they add up to one over N."""
        generator = self.generator
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)
        image = image.to(generator.normalise.mean.device)
        if self.windows:
            drawn = masks_by_windows(generator, image, generator.img_size, self.zoom)
        else:
            drawn = generator(image, windows=self.windows)
        masks: NDArray[np.float32] = drawn[0].cpu().numpy()
        return masks
