"""Overlap of soft masks with labels, at all thresholds at once.

Shape legend: N channels, T thresholds, H x W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Thresholds that the fixed protocol chooses from; the oracle takes 0.5.
THRESHOLDS = np.arange(1, 20) / 20
ORACLE_THRESHOLD = int(np.flatnonzero(np.isclose(THRESHOLDS, 0.5))[0])


def iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two binary masks; 1 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0


def iou_at_thresholds(masks_NHW: NDArray[np.floating], truth_HW: NDArray[np.bool_]) -> Floats:
    """IoU of each channel at each threshold: a pixel is foreground from the threshold on.

    Args:
        masks_NHW: Soft masks in [0, 1].
        truth_HW: Foreground of the label.

    Returns:
        (N, T); 1 where prediction and label are both empty.

    Raises:
        ValueError: If sizes differ.
    """
    if masks_NHW.shape[1:] != truth_HW.shape:
        raise ValueError(f"masks {masks_NHW.shape} and label {truth_HW.shape} differ in size.")
    true, false = (
        np.stack([_pixels_from(mask_HW[part]) for mask_HW in masks_NHW])
        for part in (truth_HW, ~truth_HW)
    )
    union = false + np.count_nonzero(truth_HW)
    return np.where(union > 0, true / np.maximum(union, 1), 1.0)


def _pixels_from(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many values reach each threshold (T,), by one histogram."""
    bins = np.searchsorted(THRESHOLDS, values, side="right")
    counts = np.bincount(bins, minlength=len(THRESHOLDS) + 1)
    return counts[::-1].cumsum()[::-1][1:]
