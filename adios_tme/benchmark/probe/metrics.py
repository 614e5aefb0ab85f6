"""Scores of predictions on test images, and their bootstrap.

Images of one slide resemble each other, so that the slide is what is drawn again where slides are
known: resampling single images would count them as independent, and give intervals that are too
narrow (Field and Welsh 2007). With very few slides there is nothing to draw from; then images are
drawn, and that is said.

Shape legend: I test images, C classes, R resamples, G groups (slides or single images).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95
#: Slides of the test part from which on slides are resampled instead of images.
FEWEST_SLIDES = 5
#: Weights of resamples that are worked on together.
_WEIGHTS_AT_A_TIME = 1 << 21


class Interval(NamedTuple):
    """A score with the ends of its 95 % percentile interval."""

    value: float
    low: float
    high: float


def group_numbers(slides: Sequence[str | None], num_images: int) -> tuple[Ints, bool]:
    """What is resampled together: the number of each image's group, and whether it is a slide."""
    known = len(slides) == num_images and None not in slides
    names, numbers = np.unique([str(slide) for slide in slides], return_inverse=True)
    if known and len(names) >= FEWEST_SLIDES:
        return numbers.astype(np.int64), True
    return np.arange(num_images), False


def balanced_accuracy(truth_I: Ints, predicted_I: Ints, weights_RI: Floats, classes: int) -> Floats:
    """Mean recall over classes (R,); not a number where a class has no image."""
    confusion_RCC = _confusion(truth_I, predicted_I, weights_RI, classes)
    hits_RC, true_RC = np.einsum("rcc->rc", confusion_RCC), confusion_RCC.sum(axis=2)
    recall_RC = hits_RC / np.where(true_RC > 0, true_RC, np.nan)
    mean: Floats = recall_RC.mean(axis=1)
    return mean


def macro_f1(truth_I: Ints, predicted_I: Ints, weights_RI: Floats, classes: int) -> Floats:
    """Mean F1 over classes (R,); not a number where a class has no image."""
    confusion_RCC = _confusion(truth_I, predicted_I, weights_RI, classes)
    hits_RC, true_RC = np.einsum("rcc->rc", confusion_RCC), confusion_RCC.sum(axis=2)
    both_RC = true_RC + confusion_RCC.sum(axis=1)
    f1_RC = 2 * hits_RC / np.where(true_RC > 0, both_RC, np.nan)
    mean: Floats = f1_RC.mean(axis=1)
    return mean


def macro_auroc(truth_I: Ints, probabilities_IC: Floats, weights_RI: Floats) -> Floats:
    """Mean over classes of the area under ROC, one class against the rest (R,).

    The area is the chance that an image of the class has the higher probability; ties count half.
    """
    areas = [
        _auroc(truth_I == number, probabilities_I, weights_RI)
        for number, probabilities_I in enumerate(probabilities_IC.T)
    ]
    mean: Floats = np.mean(areas, axis=0)
    return mean


def _auroc(is_class_I: NDArray[np.bool_], scores_I: Floats, weights_RI: Floats) -> Floats:
    order = np.argsort(scores_I, kind="stable")
    starts = np.flatnonzero(np.diff(scores_I[order], prepend=-np.inf))  # of runs of equal scores
    positive, negative = (
        np.add.reduceat(weights_RI[:, order] * mask[order], starts, axis=1)
        for mask in (is_class_I, ~is_class_I)
    )
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    area: Floats = (positive * below).sum(axis=1) / np.where(pairs > 0, pairs, np.nan)
    return area


def _confusion(truth_I: Ints, predicted_I: Ints, weights_RI: Floats, classes: int) -> Floats:
    """Weights by true and predicted class (R, C, C)."""
    cells_I = truth_I * classes + predicted_I
    one_hot = np.eye(classes * classes)[cells_I]
    confusion: Floats = (weights_RI @ one_hot).reshape(-1, classes, classes)
    return confusion


def once(num_images: int) -> Floats:
    """Each image once: (1, I)."""
    return np.ones((1, num_images))


def resamples(groups_I: Ints, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, in pieces (R', I) of `NUM_RESAMPLES` rows in all."""
    rng = np.random.default_rng(seed)
    num_groups = int(groups_I.max()) + 1
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // len(groups_I))
    for first in range(0, NUM_RESAMPLES, at_a_time):
        rows = min(at_a_time, NUM_RESAMPLES - first)
        drawn_RG = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), rows)
        yield drawn_RG[:, groups_I].astype(np.float64)


def interval(value: float, resampled_R: Floats) -> Interval:
    """A score with the percentiles of its resamples; those that lack a class are left out."""
    known = resampled_R[~np.isnan(resampled_R)]
    if not len(known):
        return Interval(value, value, value)
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


class Scores(NamedTuple):
    """What a classifier reaches on the test part."""

    balanced_accuracy: Interval
    macro_f1: Interval
    auroc: Interval


def score(truth_I: Ints, probabilities_IC: Floats, groups_I: Ints, seed: int) -> Scores:
    """Scores of predicted probabilities; the class with the highest one is predicted.

    Args:
        truth_I: True class of each image; every class has one.
        probabilities_IC: Add up to one.
        groups_I: What is resampled together, see `group_numbers`.
        seed: Of the resamples.
    """
    classes, predicted_I = probabilities_IC.shape[1], probabilities_IC.argmax(axis=1)

    def all_three(weights_RI: Floats) -> Floats:
        return np.stack(
            [
                balanced_accuracy(truth_I, predicted_I, weights_RI, classes),
                macro_f1(truth_I, predicted_I, weights_RI, classes),
                macro_auroc(truth_I, probabilities_IC, weights_RI),
            ]
        )

    values = all_three(once(len(truth_I)))[:, 0]
    resampled = np.concatenate([all_three(part) for part in resamples(groups_I, seed)], axis=1)
    return Scores(*map(interval, values.tolist(), resampled))


def paired_difference(
    truth_I: Ints, one_I: Ints, other_I: Ints, groups_I: Ints, classes: int, seed: int
) -> Interval:
    """How much higher one method's balanced accuracy is, both on the same resamples.

    Args:
        truth_I: True class of each image.
        one_I: Predicted by the one.
        other_I: Predicted by the other.
        groups_I: What is resampled together.
        classes: How many there are.
        seed: Of the resamples.
    """

    def difference(weights_RI: Floats) -> Floats:
        one, other = (
            balanced_accuracy(truth_I, predicted, weights_RI, classes)
            for predicted in (one_I, other_I)
        )
        return one - other

    value = float(difference(once(len(truth_I)))[0])
    resampled = np.concatenate([difference(part) for part in resamples(groups_I, seed)])
    return interval(value, resampled)
