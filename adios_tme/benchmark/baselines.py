"""What needs no training, on the same images.

Shape legend: H x W pixels, 3 channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu

from adios_tme.benchmark.scores import iou


def otsu_on_haematoxylin(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Nuclei by Otsu's threshold on the haematoxylin of a colour deconvolution.

    Ruifrok and Johnston 2001 for the stains, Otsu 1979 for the threshold.
    """
    haematoxylin = rgb2hed(pixels)[..., 0]
    dark: NDArray[np.bool_] = haematoxylin > threshold_otsu(haematoxylin)
    return dark


def baseline_ious(pixels: NDArray[np.uint8], truth: NDArray[np.bool_]) -> dict[str, float]:
    """IoU of each classical method on one image."""
    return {
        "otsu_haematoxylin": iou(otsu_on_haematoxylin(pixels), truth),
        "everything_foreground": iou(np.ones_like(truth), truth),
    }
