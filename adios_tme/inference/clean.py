"""Thresholds that see no label, and the cleaning of what they give; sizes in microns.

Shape legend: H x W pixels, L levels between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

#: Scale that is assumed where nobody knows it, in microns per pixel: that of a 40x objective.
USUAL_SCALE = 0.25
#: Levels of a soft mask between 0 and 1 among which Otsu's threshold is sought.
NUM_LEVELS = 256
#: What a unit of a mask's log-odds weighs beside the stain, as a share of the distance between
#: nuclei and the rest; chosen on the 26 images of docs/studies/masks-and-otsu.md, `folder`.
MASK_WEIGHT = 0.03
#: An object stays if the mask is at least this on average over it.
LEAST_MEAN = 0.4
#: Nearest to 0 and 1 that a mask may come before its log-odds are taken.
NEAREST = 1e-3

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cleaning:
    """What is smoothed and what is taken for dirt; the same tissue at every scale."""

    microns_per_pixel: float
    smoothing_um: float = 0.375
    """Standard deviation of the Gaussian that is laid over a soft map before it is thresholded."""
    opening_um: float = 0.25
    """Radius of the disc that a mask is opened with; less than a pixel: it is not."""
    smallest_um2: float = 1.875
    """Smaller objects are removed."""
    largest_hole_um2: float = 50.0
    """Larger holes stay: wider than a nucleus, they are lumina."""

    def smooth(self, soft_HW: NDArray[np.floating]) -> Map:
        """A soft map without noise."""
        sigma = self.smoothing_um / self.microns_per_pixel
        smoothed: Map = ndimage.gaussian_filter(soft_HW.astype(np.float32, copy=False), sigma)
        return smoothed

    def tidy(self, mask_HW: Mask) -> Mask:
        """A mask opened, without small objects, its holes filled."""
        disc = _disc(self.opening_um / self.microns_per_pixel)
        if disc.size > 1:
            # A nucleus that the border of the image cuts is not eroded from there.
            eroded_HW = ndimage.binary_erosion(mask_HW, disc, border_value=1)
            mask_HW = ndimage.binary_dilation(eroded_HW, disc)
        mask_HW = _large_ones(mask_HW, self._pixels(self.smallest_um2))
        return mask_HW | _holes(mask_HW, self._pixels(self.largest_hole_um2))

    def above(self, level: float, smoothed_HW: Map) -> Mask:
        """The tidy mask of a smoothed map from a level on."""
        return self.tidy(smoothed_HW >= level)

    def _pixels(self, area_um2: float) -> float:
        return area_um2 / self.microns_per_pixel**2


def otsu_mask(amount_HW: NDArray[np.floating], cleaning: Cleaning | None = None) -> Mask:
    """What lies above Otsu's threshold (1979) on any amount; nothing where it is flat.

    Args:
        amount_HW: Of a stain, say.
        cleaning: Smooth the amount first and tidy the mask; None: neither.
    """
    if cleaning is not None:
        amount_HW = cleaning.smooth(amount_HW)
    low, high = float(amount_HW.min()), float(amount_HW.max())
    if low == high:
        return np.zeros(amount_HW.shape, dtype=bool)
    counts_L = counts_at(levels_of((amount_HW - low) / (high - low)))
    centres_L = low + (high - low) * (np.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS
    mask_HW: Mask = amount_HW > threshold_otsu(hist=(counts_L, centres_L))
    return mask_HW if cleaning is None else cleaning.tidy(mask_HW)


def mask_with_stain(soft_HW: Map, amount_HW: Map, stained_HW: Mask, cleaning: Cleaning) -> Mask:
    """Nuclei by a soft mask and the stain together.

    Evidence is added up: the amount of stain, in units of the distance between the means of what
    Otsu's threshold parts, and the mask's log-odds. Otsu's threshold on the sum is tidied, and
    objects that the mask does not take for nuclei are removed.

    Args:
        soft_HW: A mask, smoothed, from 0 to 1.
        amount_HW: Of the stain, smoothed.
        stained_HW: `otsu_mask` of the stain.
        cleaning: Tidies.

    Returns:
        What the two take for nuclei; ``stained_HW`` where it is everything or nothing.
    """
    if stained_HW.all() or not stained_HW.any():
        return stained_HW
    apart = amount_HW[stained_HW].mean() - amount_HW[~stained_HW].mean()
    clipped_HW = soft_HW.clip(NEAREST, 1 - NEAREST)
    odds_HW = np.log(clipped_HW / (1 - clipped_HW))
    mask_HW = cleaning.tidy(otsu_mask(amount_HW / max(apart, NEAREST) + MASK_WEIGHT * odds_HW))
    objects, num_objects = ndimage.label(mask_HW)
    sums = np.bincount(objects.ravel(), soft_HW.ravel(), num_objects + 1)
    sizes = np.bincount(objects.ravel(), minlength=num_objects + 1)
    is_nucleus = sums >= LEAST_MEAN * sizes
    is_nucleus[0] = False
    found: Mask = is_nucleus[objects]
    return found


def levels_of(soft_HW: NDArray[np.floating]) -> NDArray[np.int64]:
    """The level at which each value of a soft mask lies, from 0 on."""
    return np.minimum((soft_HW * NUM_LEVELS).astype(np.int64), NUM_LEVELS - 1)


def counts_at(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many there are of each of the levels (L,)."""
    return np.bincount(levels.ravel(), minlength=NUM_LEVELS)


def otsu_level(counts_L: NDArray[np.int64]) -> float:
    """Otsu's threshold on soft masks, of one image or of many at once.

    Args:
        counts_L: Of `counts_at`, summed over the images.

    Returns:
        The level from which on a pixel is foreground; one half where all are at the same.
    """
    if np.count_nonzero(counts_L) < 2:
        return 0.5
    return float(threshold_otsu(hist=(counts_L, np.arange(len(counts_L)))) + 1) / len(counts_L)


def level_of_area(soft_HW: NDArray[np.floating], num_pixels: int) -> float:
    """The level from which on a soft mask covers so many pixels, or more where many are alike."""
    if num_pixels < 1:
        return float("inf")
    place = soft_HW.size - min(num_pixels, soft_HW.size)
    return float(np.partition(soft_HW, place, axis=None)[place])


def _disc(radius: float) -> Mask:
    reach = int(radius)
    steps = np.arange(-reach, reach + 1)
    disc: Mask = steps[:, None] ** 2 + steps[None] ** 2 <= radius**2
    return disc


def _large_ones(mask_HW: Mask, least: float) -> Mask:
    """The objects of at least so many pixels."""
    objects, num_objects = ndimage.label(mask_HW)
    is_large = np.bincount(objects.ravel(), minlength=num_objects + 1) >= least
    is_large[0] = False
    kept: Mask = is_large[objects]
    return kept


def _holes(mask_HW: Mask, most: float) -> Mask:
    """Background of at most so many pixels that does not reach the border of the image."""
    places, num_places = ndimage.label(~mask_HW)
    is_hole = np.bincount(places.ravel(), minlength=num_places + 1) <= most
    is_hole[0] = False
    for border in (places[0], places[-1], places[:, 0], places[:, -1]):
        is_hole[border] = False
    holes: Mask = is_hole[places]
    return holes
