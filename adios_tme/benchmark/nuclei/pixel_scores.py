"""Overlap of soft masks with a label, at all thresholds at once, and nucleus by nucleus.

Shape legend: N channels, T thresholds, L levels, P pixels, H x W pixels, 3 colours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.instance_scores import InstanceScores, compare
from adios_tme.data.stain import haematoxylin, image_correlation
from adios_tme.inference.clean import (
    NUM_LEVELS,
    Cleaning,
    Mask,
    counts_at,
    level_of_area,
    levels_of,
    mask_with_stain,
    otsu_mask,
)
from adios_tme.inference.nuclei import Labels, split_nuclei

Floats = NDArray[np.float64]

#: Thresholds that the fixed protocol chooses from; the oracle takes 0.5.
THRESHOLDS = np.arange(1, 20) / 20
#: Levels of a soft mask among which are all thresholds and all steps of precision and recall.
FINE = 5 * NUM_LEVELS
ORACLE_THRESHOLD = int(np.flatnonzero(np.isclose(THRESHOLDS, 0.5))[0])


@dataclass(frozen=True)
class Choice:
    """A channel and a threshold, both counted from 0."""

    channel: int
    threshold: int


@dataclass(frozen=True)
class BlindChoice:
    """A channel, counted from 0, and a threshold that were chosen without a label."""

    channel: int
    threshold: float
    correlation: tuple[float, ...]
    """Of each channel with the haematoxylin, mean over the images that were looked at."""


@dataclass(frozen=True)
class Chosen:
    """By each protocol, on the calibration part."""

    fixed: Choice
    no_labels: BlindChoice


@dataclass(frozen=True)
class PixelScores:
    """How thresholded channels overlap with a label; each (N, T) but the last."""

    iou: Floats
    dice: Floats
    precision: Floats
    recall: Floats
    auprc: Floats
    """(N,) area under precision and recall of the soft mask; NaN where there is no nucleus."""


@dataclass(frozen=True)
class Seen:
    """What can be seen of masks without a label."""

    correlation: Floats
    """(N,) with the haematoxylin of the image."""
    counts: NDArray[np.int64]
    """(N, L) pixels at each level."""


@dataclass(frozen=True)
class Segmentation:
    """How one binary mask agrees with a label."""

    iou: float
    dice: float
    precision: float
    recall: float
    nuclei: InstanceScores


@dataclass(frozen=True)
class ImageScores:
    """All that is known of one image."""

    pixels: PixelScores
    best_channel: int
    """The one with the highest IoU at one half."""
    channels: tuple[InstanceScores, ...]
    """Nuclei of each channel at one half."""
    seen: Seen | None
    """Until something is chosen."""
    chosen: dict[str, Segmentation]
    """What was chosen, by the names of `Segmentations`; empty until then."""
    seconds: float
    """Processor time that scoring took."""

    @property
    def oracle(self) -> InstanceScores:
        """Nuclei of the best channel."""
        return self.channels[self.best_channel]


def score_image(
    masks_NHW: NDArray[np.float32],
    pixels_HW3: NDArray[np.uint8],
    truth: Labels,
    chosen: Chosen | None,
    cleaning: Cleaning | None = None,
) -> ImageScores:
    """Score the masks of one image.

    Args:
        masks_NHW: Soft masks in [0, 1].
        pixels_HW3: The image, RGB.
        truth: (H, W) instance ids, 0 for the background, below 0 where nobody annotated.
        chosen: Channels and thresholds, once chosen.
        cleaning: Of the masks; None: they are scored as they are alone.

    Raises:
        ValueError: If sizes differ.
    """
    start = time.process_time()
    pixels = score_pixels(masks_NHW, truth)
    best = int(pixels.iou[:, ORACLE_THRESHOLD].argmax())
    half = THRESHOLDS[ORACLE_THRESHOLD]
    nuclei = _Nuclei(truth)
    channels = tuple(nuclei(mask_HW >= half) for mask_HW in masks_NHW)
    seen, found = None, {}
    if chosen is None:
        seen = see(masks_NHW, pixels_HW3)
    else:
        found = {
            name: Segmentation(*score_mask(mask_HW, truth), nuclei(mask_HW))
            for name, mask_HW in _chosen_masks(masks_NHW, pixels_HW3, chosen, cleaning)
        }
    return ImageScores(pixels, best, channels, seen, found, time.process_time() - start)


def see(masks_NHW: NDArray[np.float32], pixels_HW3: NDArray[np.uint8]) -> Seen:
    """Look at the masks of an image without a label."""
    correlation = image_correlation(masks_NHW, haematoxylin(pixels_HW3))
    return Seen(correlation, np.stack([counts_at(levels_of(mask_HW)) for mask_HW in masks_NHW]))


def _chosen_masks(
    masks_NHW: NDArray[np.float32],
    pixels_HW3: NDArray[np.uint8],
    chosen: Chosen,
    cleaning: Cleaning | None,
) -> Iterator[tuple[str, Mask]]:
    """By the names of `Segmentations`."""
    fixed, blind = chosen.fixed, chosen.no_labels
    level = THRESHOLDS[fixed.threshold]
    yield "fixed", masks_NHW[fixed.channel] >= level
    yield "no_labels", masks_NHW[blind.channel] >= blind.threshold
    if cleaning is None:
        return
    smoothed = {
        channel: cleaning.smooth(masks_NHW[channel]) for channel in {fixed.channel, blind.channel}
    }
    yield "fixed_cleaned", cleaning.above(level, smoothed[fixed.channel])
    mask_HW = smoothed[blind.channel]
    yield "no_labels_cleaned", cleaning.above(blind.threshold, mask_HW)
    amount_HW = cleaning.smooth(haematoxylin(pixels_HW3))
    stained_HW = cleaning.tidy(otsu_mask(amount_HW))
    level = level_of_area(mask_HW, int(stained_HW.sum()))
    yield "no_labels_by_area", cleaning.above(level, mask_HW)
    yield "no_labels_with_stain", mask_with_stain(mask_HW, amount_HW, stained_HW, cleaning)


class _Nuclei:
    """Compares masks with a label nucleus by nucleus, those that are the same once."""

    def __init__(self, truth: Labels) -> None:
        self._truth = truth
        self._known: dict[bytes, InstanceScores] = {}

    def __call__(self, mask_HW: Mask) -> InstanceScores:
        key = np.packbits(mask_HW).tobytes()
        if key not in self._known:
            self._known[key] = compare(self._truth, split_nuclei(mask_HW))
        return self._known[key]


def score_mask(mask_HW: Mask, truth: Labels) -> tuple[float, float, float, float]:
    """IoU, Dice, precision and recall of a binary mask, as in `score_pixels`."""
    nuclei_HW = truth > 0
    true = np.array(np.count_nonzero(mask_HW & nuclei_HW))
    false = np.array(np.count_nonzero(mask_HW & (truth == 0)))
    iou, dice, precision, recall = _overlap(true, false, int(np.count_nonzero(nuclei_HW)))
    return float(iou), float(dice), float(precision), float(recall)


def score_pixels(
    masks_NHW: NDArray[np.floating], truth_HW: Labels | NDArray[np.bool_]
) -> PixelScores:
    """Overlap of each channel at each threshold: a pixel is foreground from the threshold on.

    Where prediction and label are both empty every score is 1; where one is, it is 0.

    Args:
        masks_NHW: Soft masks in [0, 1].
        truth_HW: Instance ids, or whether there is a nucleus. Pixels below 0 count in no score.

    Raises:
        ValueError: If sizes differ.
    """
    if masks_NHW.shape[1:] != truth_HW.shape:
        raise ValueError(f"masks {masks_NHW.shape} and label {truth_HW.shape} differ in size.")
    annotated = truth_HW >= 0
    kept = slice(None) if annotated.all() else annotated.ravel()
    is_nucleus = (truth_HW > 0).ravel()[kept]
    counts = np.stack([_counts(mask_HW.ravel()[kept], is_nucleus) for mask_HW in masks_NHW], axis=1)
    false, true = _from_each(counts, FINE // (len(THRESHOLDS) + 1))[..., 1:]
    size = int(np.count_nonzero(is_nucleus))
    return PixelScores(*_overlap(true, false, size), _auprc(counts, size))


def _counts(values_P: NDArray[np.floating], is_nucleus: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many values lie at each fine level, outside of nuclei and inside: (2, L)."""
    # In double precision the product with single-precision values is exact.
    levels = np.minimum((values_P * np.float64(FINE)).astype(np.int64), FINE - 1)
    return np.bincount(levels + FINE * is_nucleus, minlength=2 * FINE).reshape(2, FINE)


def _from_each(counts: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """How many values lie at every ``step``-th of the fine levels or above."""
    return counts[..., ::-1].cumsum(axis=-1)[..., ::-1][..., ::step]


def _overlap(
    true: NDArray[np.int64], false: NDArray[np.int64], size: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """IoU, Dice, precision and recall, from right and wrong pixels and all that are right."""
    return (
        _ratio(true, false + size, size),
        _ratio(2 * true, true + false + size, size),
        _ratio(true, true + false, size),
        _ratio(true, np.full_like(true, size), size, missed=false),
    )


def _ratio(
    above: NDArray[np.int64],
    below: NDArray[np.int64],
    size: int,
    missed: NDArray[np.int64] | None = None,
) -> Floats:
    """A quotient; without pixels to divide by, 1 if that is right and 0 if it is not."""
    right = size == 0 if missed is None else missed == 0
    return np.where(below > 0, above / np.maximum(below, 1), np.where(right, 1.0, 0.0))


def _auprc(counts: NDArray[np.int64], size: int) -> Floats:
    """Average precision (N,) of soft masks, in steps of 1/256, from their counts (2, N, L)."""
    if not size:
        return np.full(counts.shape[1], np.nan)
    false, true = _from_each(counts, FINE // NUM_LEVELS)[..., ::-1]
    precision = true / np.maximum(true + false, 1)
    area: Floats = (precision * np.diff(true, axis=-1, prepend=0)).sum(axis=-1) / size
    return area
