"""What needs no training, looking at the same images.

Each is a function from RGB (H, W, 3) to masks (N, H, W), scored as a mask model is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu

from adios_tme.inference.sliding_window import Predict

#: Pixels of each calibration image that the k-means is fitted on.
PIXELS_PER_IMAGE = 4096


def otsu_on_haematoxylin(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Otsu's threshold on the haematoxylin of a colour deconvolution.

    Ruifrok and Johnston 2001 for the stains, Otsu 1979 for the threshold.
    """
    haematoxylin = rgb2hed(pixels)[..., 0]
    if haematoxylin.min() == haematoxylin.max():  # a blank image has no threshold
        return np.zeros((1, *haematoxylin.shape), dtype=np.float32)
    nuclei: NDArray[np.float32] = (haematoxylin > threshold_otsu(haematoxylin)).astype(np.float32)
    return nuclei[None]


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
        rgb2hed(pixels).reshape(-1, 3)[rng.integers(0, pixels[..., 0].size, PIXELS_PER_IMAGE)]
        for pixels in images
    ]
    centres, _ = kmeans2(np.concatenate(drawn), num_clusters, minit="++", seed=rng)

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        nearest, _ = vq(rgb2hed(pixels).reshape(-1, 3), centres)
        places = nearest.reshape(pixels.shape[:2])
        return np.stack([places == cluster for cluster in range(num_clusters)]).astype(np.float32)

    return predict
