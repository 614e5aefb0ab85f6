"""From IoU of every image, channel and threshold to the two figures that are reported apart.

Shape legend: I images, N channels, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.scores import ORACLE_THRESHOLD, THRESHOLDS
from adios_tme.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ChannelScores:
    """What a mask model reached."""

    oracle_iou_mean: float
    """Best channel of each image at threshold 0.5, mean over all images."""
    oracle_iou_std: float
    fixed_channel: int
    """Chosen on the calibration part; counted from 1, as pictures do."""
    fixed_threshold: float
    fixed_iou_mean: float
    """That channel at that threshold, mean over the rest of the images."""
    fixed_iou_std: float
    random_channel_iou_mean: float
    """A channel drawn blindly, at its own best threshold, on the same rest."""
    best_channel_shares: tuple[float, ...]
    """Share of images in which each channel is the oracle's choice."""


def calibration_part(num_images: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Which images channel and threshold are chosen on.

    Raises:
        DataError: If there are too few images for two parts.
    """
    if num_images < 2:
        raise DataError(
            f"labels: {num_images} image cannot be split into calibration and test. "
            f"Give two labelled images or more."
        )
    num_chosen = min(num_images - 1, max(1, round(share * num_images)))
    chosen = np.zeros(num_images, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(num_images)[:num_chosen]] = True
    return chosen


def score_channels(iou_INT: Floats, calibration_I: NDArray[np.bool_]) -> ChannelScores:
    """Apply both protocols.

    Args:
        iou_INT: IoU of each image, channel and threshold.
        calibration_I: The images to choose on; the others are scored.
    """
    at_half_IN = iou_INT[:, :, ORACLE_THRESHOLD]
    best_I = at_half_IN.max(axis=1)
    winners = np.bincount(at_half_IN.argmax(axis=1), minlength=iou_INT.shape[1])
    chosen_NT = iou_INT[calibration_I].mean(axis=0)
    channel, threshold = np.unravel_index(chosen_NT.argmax(), chosen_NT.shape)
    rest_INT = iou_INT[~calibration_I]
    fixed_I = rest_INT[:, channel, threshold]
    own_threshold_N = chosen_NT.argmax(axis=1)
    blind_N = rest_INT.mean(axis=0)[np.arange(len(own_threshold_N)), own_threshold_N]
    return ChannelScores(
        oracle_iou_mean=float(best_I.mean()),
        oracle_iou_std=float(best_I.std()),
        fixed_channel=int(channel) + 1,
        fixed_threshold=float(THRESHOLDS[threshold]),
        fixed_iou_mean=float(fixed_I.mean()),
        fixed_iou_std=float(fixed_I.std()),
        random_channel_iou_mean=float(blind_N.mean()),
        best_channel_shares=tuple(float(share) for share in winners / len(best_I)),
    )
