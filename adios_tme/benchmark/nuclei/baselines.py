"""What needs no training, looking at the same images.

Each is a function from RGB (H, W, 3) to masks (N, H, W), scored as a mask model is.

Shape legend: N masks, H x W pixels, P pixels in a row, C colours, S stains.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

from adios_tme.data.stain import DENSITY, haematoxylin, stain_amounts
from adios_tme.inference.clean import Cleaning, Mask, otsu_mask
from adios_tme.inference.sliding_window import Predict

#: Pixels of each calibration image that the k-means is fitted on.
PIXELS_PER_IMAGE = 4096
#: Natural optical density that a stained pixel has in every colour, as in the authors' code.
STAINED = 0.15
#: Share of the angles in the plane of the stains that lies beyond each stain vector, in percent.
BEYOND = 1.0
#: An image with fewer stained pixels shows no stain.
FEWEST_STAINED = 100
#: Two stain vectors whose cosine is above this are one stain.
MOST_ALIKE = 0.995


def otsu_on_haematoxylin(
    pixels: NDArray[np.uint8], cleaning: Cleaning | None = None
) -> NDArray[np.float32]:
    """Otsu's threshold on the haematoxylin of a colour deconvolution.

    Ruifrok and Johnston 2001 for the stains, Otsu 1979 for the threshold.

    Args:
        pixels: The image.
        cleaning: Smooth the haematoxylin first and tidy the mask; None: neither.
    """
    return _one_mask(otsu_mask(haematoxylin(pixels), cleaning))


class OtsuOnMacenko:
    """Otsu's threshold on haematoxylin by the stain vectors of each image.

    Where they cannot be estimated those of `otsu_on_haematoxylin` are taken, and counted.

    Args:
        cleaning: As for `otsu_on_haematoxylin`.
    """

    def __init__(self, cleaning: Cleaning | None = None) -> None:
        self._cleaning = cleaning
        self.num_images = 0
        self.num_without_stains = 0
        """Images in which no two stains were found."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One mask (1, H, W) of an RGB image (H, W, 3)."""
        self.num_images += 1
        density_PC = DENSITY[pixels.reshape(-1, 3)]
        stains_SC = stain_vectors(density_PC)
        if stains_SC is None:
            self.num_without_stains += 1
            return otsu_on_haematoxylin(pixels, self._cleaning)
        amount_P = (density_PC @ np.linalg.pinv(stains_SC)[:, 0]).clip(0)
        return _one_mask(otsu_mask(amount_P.reshape(pixels.shape[:2]), self._cleaning))


def stain_vectors(density_PC: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Optical densities of haematoxylin and eosin in an image (Macenko et al. 2009).

    The extreme directions of its stained pixels in the plane that holds most of them.

    Args:
        density_PC: Natural optical densities of the pixels.

    Returns:
        (S, C) of length one, haematoxylin first; None where too few pixels are stained or all by
        the same stain.
    """
    stained_PC = density_PC[(density_PC >= STAINED).all(axis=1)]
    if len(stained_PC) < FEWEST_STAINED:
        return None
    _, directions = np.linalg.eigh(np.cov(stained_PC, rowvar=False))
    plane_C2 = directions[:, :0:-1]  # those of the largest eigenvalues
    plane_C2 = plane_C2 * np.where(plane_C2.sum(axis=0) < 0, -1, 1)
    along_P, across_P = (stained_PC @ plane_C2).T
    low, high = np.percentile(np.arctan2(across_P, along_P), [BEYOND, 100 - BEYOND])
    stains_SC = np.array([plane_C2 @ (np.cos(angle), np.sin(angle)) for angle in (low, high)])
    if stains_SC[0] @ stains_SC[1] > MOST_ALIKE:
        return None
    # Haematoxylin takes away more red than eosin does.
    return stains_SC[np.argsort(-stains_SC[:, 0])]


def everything_foreground(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One mask over the whole image."""
    return np.ones((1, *pixels.shape[:2]), dtype=np.float32)


def kmeans_in_hed(images: Iterable[NDArray[np.uint8]], num_clusters: int, seed: int) -> Predict:
    """Clusters of pixels by their amounts of haematoxylin, eosin and residual stain.

    Args:
        images: Calibration images (H, W, 3), on whose pixels the clusters are fitted.
        num_clusters: As many as the mask model has masks.
        seed: Of the pixels that are drawn and of the first centres.

    Returns:
        A function that gives each pixel of an image to its nearest cluster.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        stain_amounts(pixels).reshape(-1, 3)[rng.integers(0, pixels[..., 0].size, PIXELS_PER_IMAGE)]
        for pixels in images
    ]
    centres, _ = kmeans2(np.concatenate(drawn), num_clusters, minit="++", seed=rng)

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        nearest, _ = vq(stain_amounts(pixels).reshape(-1, 3), centres)
        places = nearest.reshape(pixels.shape[:2])
        return np.stack([places == cluster for cluster in range(num_clusters)]).astype(np.float32)

    return predict


def _one_mask(mask_HW: Mask) -> NDArray[np.float32]:
    return mask_HW[None].astype(np.float32)
