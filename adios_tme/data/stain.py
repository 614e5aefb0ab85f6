"""Colour deconvolution: how much haematoxylin a pixel shows, in images and in batches.

The amounts are the same for both: arrays of NumPy go by tables, tensors by arithmetic on their
device.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch takes seconds to load, and tables need none of it
    from torch import Tensor

#: Optical densities of haematoxylin, eosin and a residual stain in red, green and blue
#: (Ruifrok and Johnston 2001), rows of unit length.
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
#: From optical densities to amounts of the three stains.
UNMIX_CS = np.linalg.inv(np.array(STAINS))
#: Optical density of each value of a byte; black counts as the darkest that is not.
DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255)
#: What each byte of each colour adds to the amount of each stain.
_TABLES = (DENSITY[:, None, None] * UNMIX_CS[None]).astype(np.float32)
#: Standard deviation below which a mask or an image counts as one flat value.
_FLAT = 1e-6


def stain_amounts(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Amounts of haematoxylin, eosin and residual stain of an RGB image (H, W, 3).

    Returns:
        (H, W, 3), in units of natural optical density; what would be negative is 0.
    """
    return np.stack([_amount(pixels, stain) for stain in range(3)], axis=-1)


def haematoxylin(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The first of `stain_amounts` alone (H, W)."""
    return _amount(pixels, 0)


def _amount(pixels: NDArray[np.uint8], stain: int) -> NDArray[np.float32]:
    red, green, blue = (_TABLES[pixels[..., colour], colour, stain] for colour in range(3))
    amount: NDArray[np.float32] = (red + green + blue).clip(0)
    return amount


def optical_density(images_BCHW: Tensor) -> Tensor:
    """Natural optical density of uint8 images, or of float ones in [0, 1]."""
    return -(as_unit(images_BCHW).clamp(min=1 / 255)).log()


def as_unit(images_BCHW: Tensor) -> Tensor:
    """Images of bytes as float ones in [0, 1], in which others are already."""
    return images_BCHW if images_BCHW.is_floating_point() else images_BCHW.float() / 255


def batch_haematoxylin(images_BCHW: Tensor) -> Tensor:
    """`haematoxylin` of RGB images on a device: (B, H, W); uint8, or float in [0, 1]."""
    density_BCHW = optical_density(images_BCHW)
    red, green, blue = UNMIX_CS[:, 0].tolist()
    amount_BHW: Tensor = (
        red * density_BCHW[:, 0] + green * density_BCHW[:, 1] + blue * density_BCHW[:, 2]
    )
    return amount_BHW.clamp(min=0)


def image_correlation(
    masks_NHW: NDArray[np.floating], haematoxylin_HW: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Correlation (Pearson) of each mask of an image with its haematoxylin.

    Returns:
        (N,) from -1 to 1; 0 where a mask, or the image, is flat.
    """
    amount = (haematoxylin_HW - haematoxylin_HW.mean()).ravel()
    masks_NP = masks_NHW.reshape(len(masks_NHW), -1)
    masks_NP = masks_NP - masks_NP.mean(axis=1, keepdims=True)
    spread_N = np.sqrt((masks_NP**2).mean(axis=1)).clip(_FLAT) * max(amount.std(), _FLAT)
    correlation: NDArray[np.float64] = (masks_NP @ amount / amount.size / spread_N).astype(float)
    return correlation


def haematoxylin_correlation(masks_BNHW: Tensor, images_BCHW: Tensor) -> Tensor:
    """`image_correlation` of every image of a batch, on its device.

    Args:
        masks_BNHW: Soft masks.
        images_BCHW: RGB at their size, uint8 or float in [0, 1]; not normalised.

    Returns:
        (B, N) from -1 to 1; the mean over B says which channel follows the nuclei.
    """
    amount_BP = batch_haematoxylin(images_BCHW).flatten(1)
    amount_BP = amount_BP - amount_BP.mean(dim=1, keepdim=True)
    masks_BNP = masks_BNHW.float().flatten(2)
    masks_BNP = masks_BNP - masks_BNP.mean(dim=2, keepdim=True)
    spread_B = amount_BP.pow(2).mean(dim=1).sqrt().clamp(min=_FLAT)
    spread_BN = masks_BNP.pow(2).mean(dim=2).sqrt().clamp(min=_FLAT) * spread_B[:, None]
    return (masks_BNP * amount_BP[:, None]).mean(dim=2) / spread_BN
