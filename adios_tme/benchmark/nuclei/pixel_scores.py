"""Overlap of soft masks with a label, at all thresholds at once, and nucleus by nucleus.

Shape legend: N channels, T thresholds, H x W pixels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.instance_scores import InstanceScores, compare
from adios_tme.inference.nuclei import Labels, split_nuclei

Floats = NDArray[np.float64]

#: Thresholds that the fixed protocol chooses from; the oracle takes 0.5.
THRESHOLDS = np.arange(1, 20) / 20
ORACLE_THRESHOLD = int(np.flatnonzero(np.isclose(THRESHOLDS, 0.5))[0])
#: Steps of the soft masks between 0 and 1 at which precision and recall are followed.
NUM_STEPS = 256


@dataclass(frozen=True)
class Choice:
    """A channel and a threshold, both counted from 0."""

    channel: int
    threshold: int


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
class ImageScores:
    """All that is known of one image."""

    pixels: PixelScores
    best_channel: int
    """The one with the highest IoU at one half."""
    channels: tuple[InstanceScores, ...]
    """Nuclei of each channel at one half."""
    fixed: InstanceScores | None
    """Nuclei of the chosen channel and threshold, once they are chosen."""
    seconds: float
    """Processor time that scoring took."""

    @property
    def oracle(self) -> InstanceScores:
        """Nuclei of the best channel."""
        return self.channels[self.best_channel]


def score_image(
    masks_NHW: NDArray[np.float32], truth: Labels, choice: Choice | None
) -> ImageScores:
    """Score the masks of one image.

    Args:
        masks_NHW: Soft masks in [0, 1].
        truth: (H, W) instance ids, 0 for the background, below 0 where nobody annotated.
        choice: Channel and threshold of the fixed protocol, once chosen.

    Raises:
        ValueError: If sizes differ.
    """
    start = time.process_time()
    pixels = score_pixels(masks_NHW, truth)
    best = int(pixels.iou[:, ORACLE_THRESHOLD].argmax())
    channels = tuple(
        _nuclei(masks_NHW, truth, Choice(channel, ORACLE_THRESHOLD))
        for channel in range(len(masks_NHW))
    )
    fixed = None
    if choice is not None:
        at_half = choice.threshold == ORACLE_THRESHOLD
        fixed = channels[choice.channel] if at_half else _nuclei(masks_NHW, truth, choice)
    return ImageScores(pixels, best, channels, fixed, time.process_time() - start)


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
    nuclei_HW, void_HW = truth_HW > 0, truth_HW < 0
    parts = (nuclei_HW, ~(nuclei_HW | void_HW))
    true, false = (
        np.stack([_pixels_from(mask_HW[part]) for mask_HW in masks_NHW]) for part in parts
    )
    size = int(np.count_nonzero(nuclei_HW))
    annotated = ~void_HW if void_HW.any() else ...
    auprc = [_auprc(mask_HW[annotated], nuclei_HW[annotated]) for mask_HW in masks_NHW]
    return PixelScores(
        iou=_ratio(true, false + size, size),
        dice=_ratio(2 * true, true + false + size, size),
        precision=_ratio(true, true + false, size),
        recall=_ratio(true, np.full_like(true, size), size, missed=false),
        auprc=np.array(auprc),
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


def _pixels_from(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many values reach each threshold (T,), by one histogram."""
    bins = np.searchsorted(THRESHOLDS, values, side="right")
    counts = np.bincount(bins, minlength=len(THRESHOLDS) + 1)
    return counts[::-1].cumsum()[::-1][1:]


def _auprc(mask_HW: NDArray[np.floating], truth_HW: NDArray[np.bool_]) -> float:
    """Average precision of a soft mask, in steps of 1/256."""
    size = np.count_nonzero(truth_HW)
    if not size:
        return float("nan")
    steps = np.minimum((mask_HW * NUM_STEPS).astype(np.int64), NUM_STEPS - 1)
    every = np.bincount(steps.ravel(), minlength=NUM_STEPS)[::-1].cumsum()
    true = np.bincount(steps[truth_HW], minlength=NUM_STEPS)[::-1].cumsum()
    precision = true / np.maximum(every, 1)
    return float((precision * np.diff(true, prepend=0)).sum() / size)


def _nuclei(masks_NHW: NDArray[np.float32], truth: Labels, choice: Choice) -> InstanceScores:
    mask = masks_NHW[choice.channel] >= THRESHOLDS[choice.threshold]
    return compare(truth, split_nuclei(mask))
