"""From scores of single images to what is reported: three protocols, kept apart.

*Oracle*: the best channel of each image at threshold 0.5, over all images. *Fixed*: one channel and
threshold, chosen on the calibration part and scored on the rest. *No labels*: the same, but chosen
on the images of that part without their labels.

Shape legend: I images, N channels, T thresholds, L levels, S scores, R resamples or rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.instance_scores import InstanceScores
from adios_tme.benchmark.nuclei.pixel_scores import (
    ORACLE_THRESHOLD,
    THRESHOLDS,
    BlindChoice,
    Choice,
    Chosen,
    Floats,
    ImageScores,
    Seen,
    Segmentation,
)
from adios_tme.benchmark.nuclei.results import (
    PAIRED,
    PAIRED_DIGITS,
    SCORES,
    SEGMENTATIONS,
    ChannelScores,
    Interval,
    Means,
    MethodScores,
    NoLabelsChoice,
    Scores,
    TissueScores,
)
from adios_tme.errors import ConfigError, DataError
from adios_tme.inference.clean import otsu_level

PIXEL_SCORES = ("iou", "dice", "precision", "recall")
NUM_RESAMPLES = 1000
CONFIDENCE = 0.95


def calibration_part(parts: Sequence[str], chosen: str, seed: int) -> NDArray[np.bool_]:
    """Which images channel and threshold are chosen on.

    Args:
        parts: The part of the data set that each image belongs to.
        chosen: A share of the images between 0 and 1, or the name of a part.
        seed: Of the images that a share draws.

    Raises:
        DataError: If there are too few images for two groups.
        ConfigError: If there is no such part, or a share is not between 0 and 1.
    """
    num_images = len(parts)
    if num_images < 2:
        raise DataError(
            f"labels: {num_images} image cannot be split into calibration and test. "
            f"Give two labelled images or more."
        )
    try:
        share = float(chosen)
    except ValueError:
        picked: NDArray[np.bool_] = np.array([part == chosen for part in parts])
        if picked.all() or not picked.any():
            names = sorted(set(parts) - {""})
            raise ConfigError(
                f"calibration: {chosen!r} is {'the only' if picked.all() else 'no'} part of this "
                f"data set. Use a share such as 0.2"
                f"{', or one of ' + ', '.join(names) if len(names) > 1 else ''}."
            ) from None
        return picked
    if not 0 < share < 1:
        raise ConfigError(f"calibration: {chosen} is no share. Use a number between 0 and 1.")
    num_chosen = min(num_images - 1, max(1, round(share * num_images)))
    drawn = np.zeros(num_images, dtype=bool)
    drawn[np.random.default_rng(seed).permutation(num_images)[:num_chosen]] = True
    return drawn


def choose(iou_INT: Floats) -> Choice:
    """The channel and threshold with the highest mean IoU."""
    mean_NT = iou_INT.mean(axis=0)
    channel, threshold = np.unravel_index(mean_NT.argmax(), mean_NT.shape)
    return Choice(int(channel), int(threshold))


def choose_without_labels(seen: Sequence[Seen]) -> BlindChoice:
    """The channel that goes with the haematoxylin most, and Otsu's threshold on its values.

    Args:
        seen: Of each image that may be looked at.
    """
    correlation_N = np.mean([each.correlation for each in seen], axis=0)
    channel = int(correlation_N.argmax())
    counts_L = np.sum([each.counts[channel] for each in seen], axis=0)
    return BlindChoice(channel, otsu_level(counts_L), tuple(correlation_N.tolist()))


def summarise(
    scores: Sequence[ImageScores],
    calibration_I: NDArray[np.bool_],
    chosen: Chosen,
    tissues: Sequence[str | None],
    seed: int,
) -> MethodScores:
    """Apply all protocols to the images of one method.

    Args:
        scores: Of every image; those of the test part with the scores of ``chosen``.
        calibration_I: The images it was chosen on.
        chosen: Channels and thresholds.
        tissues: Organ of each image, where it is known.
        seed: Of the bootstrap.
    """
    iou_INT = np.stack([each.pixels.iou for each in scores])
    test = np.flatnonzero(~calibration_I).tolist()
    rows = _rows_of_segmentations([scores[image] for image in test], chosen)
    oracle_IS = np.array([_row_at_half(each, each.best_channel) for each in scores])
    own_threshold_N = iou_INT[calibration_I].mean(axis=0).argmax(axis=1)
    random_N = iou_INT[test].mean(axis=0)[np.arange(len(own_threshold_N)), own_threshold_N]
    by_tissue = _by_tissue(rows["fixed"], [tissues[image] for image in test])
    found = {name: _intervals(rows_IS, seed) for name, rows_IS in rows.items()}
    blind = chosen.no_labels
    return MethodScores(
        channel=chosen.fixed.channel + 1,
        threshold=float(THRESHOLDS[chosen.fixed.threshold]),
        fixed=found["fixed"],
        fixed_cleaned=found.get("fixed_cleaned"),
        no_labels=found["no_labels"],
        no_labels_cleaned=found.get("no_labels_cleaned"),
        no_labels_by_area=found.get("no_labels_by_area"),
        no_labels_with_stain=found.get("no_labels_with_stain"),
        no_labels_choice=NoLabelsChoice(blind.channel + 1, blind.threshold, blind.correlation),
        oracle=_intervals(oracle_IS, seed),
        random_channel_iou=float(random_N.mean()),
        channels=tuple(_of_channel(scores, channel) for channel in range(iou_INT.shape[1])),
        tissues=by_tissue,
        mean_over_tissues=_over_tissues(by_tissue),
        per_image={
            name: _per_image(rows_IS) for name, rows_IS in (*rows.items(), ("oracle", oracle_IS))
        },
    )


def _rows_of_segmentations(scores: Sequence[ImageScores], chosen: Chosen) -> dict[str, Floats]:
    """The scores (I, S) of each segmentation that there is; only soft masks have an AUPRC."""
    soft = {"fixed": chosen.fixed.channel, "no_labels": chosen.no_labels.channel}
    return {
        name: np.array(
            [
                _row(each.chosen[name], each.pixels.auprc[soft[name]] if name in soft else np.nan)
                for each in scores
            ]
        )
        for name in SEGMENTATIONS
        if name in scores[0].chosen
    }


def _row(found: Segmentation, auprc: float) -> list[float]:
    """In the order of `Scores`."""
    return [*(getattr(found, name) for name in PIXEL_SCORES), auprc, *_of_nuclei(found.nuclei)]


def _row_at_half(each: ImageScores, channel: int) -> list[float]:
    """A channel at threshold 0.5, in the order of `Scores`."""
    pixels = [getattr(each.pixels, name)[channel, ORACLE_THRESHOLD] for name in PIXEL_SCORES]
    return [*pixels, each.pixels.auprc[channel], *_of_nuclei(each.channels[channel])]


def _of_nuclei(nuclei: InstanceScores) -> tuple[float, float, float, float]:
    return nuclei.aji, nuclei.pq, nuclei.dq, nuclei.sq


def _per_image(rows_IS: Floats) -> dict[str, tuple[float, ...]]:
    columns = {name: rows_IS[:, SCORES.index(name)] for name in PAIRED}
    return {name: tuple(each.round(PAIRED_DIGITS).tolist()) for name, each in columns.items()}


def _of_channel(scores: Sequence[ImageScores], channel: int) -> ChannelScores:
    """What one channel is worth by itself, without looking for the best."""
    rows_IS = np.array([_row_at_half(each, channel) for each in scores])
    best = [each.best_channel == channel for each in scores]
    return ChannelScores(float(np.mean(best)), _means(rows_IS))


def _means(rows_RS: Floats) -> Means:
    """Mean of each score over the rows that have it; None where none has."""
    known = [column[~np.isnan(column)] for column in rows_RS.T]
    return Means(*(float(column.mean()) if len(column) else None for column in known))


def _intervals(scores_IS: Floats, seed: int) -> Scores[Interval]:
    """Mean, standard deviation and percentile bootstrap of each score over images."""
    drawn_RI = resamples(len(scores_IS), seed)
    return Scores(*(interval(values_I, drawn_RI) for values_I in scores_IS.T))


@lru_cache(maxsize=2)  # of the test part and of all images
def resamples(num_images: int, seed: int) -> NDArray[np.int64]:
    """Numbers of images (R, I), drawn with replacement."""
    return np.random.default_rng(seed).integers(0, num_images, (NUM_RESAMPLES, num_images))


def interval(values_I: Floats, drawn_RI: NDArray[np.int64]) -> Interval:
    """Of a value that some images may not have (NaN)."""
    known_I = values_I[~np.isnan(values_I)]
    if not len(known_I):  # AUPRC of images without a nucleus
        return Interval(mean=None, std=None, low=None, high=None)
    resampled_R = np.nan_to_num(values_I)[drawn_RI].sum(axis=1)
    counted_R = (~np.isnan(values_I))[drawn_RI].sum(axis=1)
    means_R = resampled_R[counted_R > 0] / counted_R[counted_R > 0]
    low, high = np.quantile(means_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(
        mean=float(known_I.mean()), std=float(known_I.std()), low=float(low), high=float(high)
    )


def _by_tissue(fixed_IS: Floats, tissues: Sequence[str | None]) -> dict[str, TissueScores]:
    names = np.array([tissue or "" for tissue in tissues])
    found: dict[str, TissueScores] = {}
    for name in sorted(set(names) - {""}):
        rows_IS = fixed_IS[names == name]
        found[str(name)] = TissueScores(len(rows_IS), _means(rows_IS))
    return found


def _over_tissues(by_tissue: dict[str, TissueScores]) -> Means | None:
    rows = [astuple(tissue.means) for tissue in by_tissue.values()]
    return _means(np.array(rows, dtype=float)) if rows else None
