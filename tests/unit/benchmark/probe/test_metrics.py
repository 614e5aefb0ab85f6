"""Scores against scikit-learn's, and what their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference

from adios_tme.benchmark.probe.metrics import (
    NUM_RESAMPLES,
    balanced_accuracy,
    group_numbers,
    macro_auroc,
    macro_f1,
    once,
    paired_difference,
    resamples,
    score,
)


def predictions(
    classes: int, num_images: int = 60, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Classes of unequal size, and probabilities with many ties that lean to the true ones."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, num_images - classes)])
    truth[classes : num_images // 2] = 0
    votes = rng.integers(0, 4, (num_images, classes)) + 2 * np.eye(classes)[truth] + 1
    return truth, votes / votes.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scores_are_those_of_scikit_learn(classes: int) -> None:
    truth, probabilities = predictions(classes)
    predicted = probabilities.argmax(axis=1)
    found = score(truth, probabilities, np.arange(len(truth)), seed=0)
    shown = probabilities[:, 1] if classes == 2 else probabilities
    area = reference.roc_auc_score(truth, shown, average="macro", multi_class="ovr")
    expected = (
        reference.balanced_accuracy_score(truth, predicted),
        reference.f1_score(truth, predicted, average="macro"),
        area,
    )
    assert [each.value for each in found] == pytest.approx(expected)
    assert all(each.low < each.value < each.high for each in found)


def test_a_weight_is_an_image_that_is_there_so_often() -> None:
    truth, probabilities = predictions(3)
    counts = np.random.default_rng(1).integers(0, 4, (5, len(truth)))
    counts[:, :3] = 1  # no class is without an image
    weights = counts.astype(float)
    predicted = probabilities.argmax(axis=1)
    found = (
        balanced_accuracy(truth, predicted, weights, 3),
        macro_f1(truth, predicted, weights, 3),
        macro_auroc(truth, probabilities, weights),
    )
    for row, each in enumerate(counts):
        again = np.repeat(np.arange(len(truth)), each)
        expected = (
            reference.balanced_accuracy_score(truth[again], predicted[again]),
            reference.f1_score(truth[again], predicted[again], average="macro"),
            reference.roc_auc_score(truth[again], probabilities[again], multi_class="ovr"),
        )
        assert [score[row] for score in found] == pytest.approx(expected)


def test_resamples_that_lack_a_class_do_not_count() -> None:
    truth = np.array([0, 0, 1])
    weights = np.array([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    found = balanced_accuracy(truth, truth, weights, 2)
    assert np.isnan(found[0])
    assert found[1] == 1
    assert np.isnan(macro_auroc(truth, np.eye(2)[truth], weights)[0])
    assert np.isnan(macro_f1(truth, truth, weights, 2)[0])


def test_an_interval_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 400)
    right = rng.random(800) < 0.8
    predicted = np.where(right, truth, 1 - truth)
    found = score(truth, np.eye(2)[predicted], np.arange(800), seed=0).balanced_accuracy
    # Mean of two recalls of 400 images each.
    deviation = np.sqrt(sum(right[truth == each].var() / 400 for each in (0, 1))) / 2
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)


def test_intervals_hold_chance_where_labels_are_shuffled() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(60):
        truth, votes = rng.permutation([0, 1] * 30), rng.random((60, 2))
        found = score(truth, votes / votes.sum(axis=1, keepdims=True), np.arange(60), seed=0)
        held.append([each.low <= 0.5 <= each.high for each in (found[0], found[2])])
    assert (np.mean(held, axis=0) > 0.88).all()


def test_slides_are_drawn_whole() -> None:
    slides = [f"slide {number}" for number in range(9) for _ in range(number + 1)]
    groups, by_slide = group_numbers(slides, 45)
    assert by_slide
    drawn = np.concatenate(list(resamples(groups, seed=0)))
    assert drawn.shape == (NUM_RESAMPLES, 45)
    firsts = [slides.index(name) for name in slides]
    assert (drawn == drawn[:, firsts]).all()
    assert (drawn[:, sorted(set(firsts))].sum(axis=1) == 9).all()  # as many slides as there are


@pytest.mark.parametrize(
    "slides", [["a", "b", "c", "d"] * 3, [None, *"abcdefghijk"]], ids=["few", "unknown"]
)
def test_images_are_drawn_where_slides_cannot_be(slides: list[str | None]) -> None:
    groups, by_slide = group_numbers(slides, 12)
    assert not by_slide
    assert groups.tolist() == list(range(12))


def test_images_of_a_slide_that_are_alike_widen_the_interval() -> None:
    truth = np.tile([0, 1], 60)
    slides = [f"slide {number // 12}" for number in range(120)]
    right = np.repeat(np.arange(10) < 7, 12)  # whole slides are right or wrong
    probabilities = np.eye(2)[np.where(right, truth, 1 - truth)]
    widths = []
    for names in (slides, [None] * 120):
        groups, _ = group_numbers(names, 120)
        found = score(truth, probabilities, groups, seed=0).balanced_accuracy
        widths.append(found.high - found.low)
    assert widths[0] > 2.5 * widths[1]


def test_a_difference_is_paired() -> None:
    truth = np.repeat([0, 1], 100)
    one = np.where(np.arange(200) % 100 < 30, 1 - truth, truth)
    other = np.where(np.arange(200) % 100 < 36, 1 - truth, truth)
    groups = np.arange(200)
    found = paired_difference(truth, one, other, groups, 2, seed=0)
    assert found.value == pytest.approx(0.06)
    # Each alone is known to 0.065, but they are wrong on the same images.
    assert 0 < found.low < found.high < 0.12
    same = paired_difference(truth, one, one, groups, 2, seed=0)
    assert same == (0, 0, 0)
    assert once(3).tolist() == [[1, 1, 1]]
