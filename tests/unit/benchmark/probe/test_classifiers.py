"""kNN against a plain loop, logistic regression against scikit-learn's own pipeline."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from adios_tme.benchmark.probe.classifiers import (
    DEFAULT_STRENGTH,
    NUM_FOLDS,
    STRENGTHS,
    _folds,
    knn_probabilities,
    logistic_regression,
    require_scikit_learn,
    standardised,
)
from adios_tme.errors import ConfigError

Floats = NDArray[np.float64]


def clusters(
    classes: int, num_each: int, spread: float, seed: int = 0
) -> tuple[Floats, NDArray[np.int64]]:
    """Features around a centre for each class; the scale of each feature is another one."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), num_each)
    centres = np.random.default_rng(9).normal(size=(classes, 6))
    features = centres[labels] + spread * rng.normal(size=(len(labels), 6))
    return features * 10.0 ** np.arange(-2, 4), labels


def knn_by_loop(
    train: Floats, labels: NDArray[np.int64], image: Floats, classes: int, k: int, T: float
) -> list[float]:
    """Votes of one test image, as the paper has them."""

    def cosine(one: Floats, other: Floats) -> float:
        dot = float(sum(a * b for a, b in zip(one, other, strict=True)))
        return dot / math.hypot(*one) / math.hypot(*other)

    near = sorted(
        ((cosine(each, image), label) for each, label in zip(train, labels, strict=True)),
        reverse=True,
    )
    votes = [0.0] * classes
    for similarity, label in near[:k]:
        votes[label] += math.exp(similarity / T)
    return [vote / sum(votes) for vote in votes]


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 1.0), (500, 0.3)])
def test_knn_is_what_a_loop_gives(k: int, temperature: float) -> None:
    train, labels = clusters(3, 12, spread=1.5)
    test, _ = clusters(3, 4, spread=1.5, seed=1)
    found = knn_probabilities(train, labels, test, 3, k, temperature)
    expected = [knn_by_loop(train, labels, image, 3, k, temperature) for image in test]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_small_temperature_and_a_vector_of_zeros_give_numbers() -> None:
    train, labels = clusters(2, 5, spread=1.0)
    found = knn_probabilities(train, labels, np.zeros((1, 6)), 2, 3, 1e-4)
    assert found.sum() == pytest.approx(1)


def test_standardised_features_are_those_of_scikit_learn() -> None:
    train, _ = clusters(2, 8, spread=1.0)
    test, _ = clusters(2, 3, spread=1.0, seed=1)
    train[:, 0] = test[:, 0] = 0.1  # flat
    scaler = StandardScaler().fit(train)
    for found, part in zip(standardised(train, test), (train, test), strict=True):
        np.testing.assert_allclose(found, scaler.transform(part), atol=1e-9)


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    train, labels = clusters(3, 20, spread=2.0)
    test, _ = clusters(3, 5, spread=2.0, seed=1)
    found = logistic_regression(train, labels, [None] * 60, test, 3, seed=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=found.strength, max_iter=2000))
    expected = model.fit(train, labels).predict_proba(test)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.strength in STRENGTHS
    assert (found.chosen_by, found.converged) == ("patch", True)


def test_the_penalty_is_chosen_on_slides_that_were_not_seen() -> None:
    rng = np.random.default_rng(0)
    slides = np.repeat(np.arange(12), 10)
    labels = slides % 2
    weak = labels + rng.normal(scale=1.5, size=120)
    train = np.column_stack([weak, np.eye(12)[slides] * 3])  # what tells the slide misleads
    names = [str(slide) for slide in slides]
    chosen = {}
    for what, given in (("slide", names), ("patch", [None] * 120)):
        found = logistic_regression(train, labels, given, train, 2, seed=0)
        assert found.chosen_by == what
        reached = []
        for strength in STRENGTHS:
            predicted = labels.copy()
            for fold in _folds(labels, given, 2, seed=0)[0]:
                rest = np.delete(np.arange(120), fold)
                model = make_pipeline(StandardScaler(), LogisticRegression(C=strength))
                predicted[fold] = model.fit(train[rest], labels[rest]).predict(train[fold])
            reached.append(balanced_accuracy_score(labels, predicted))
        assert found.strength == STRENGTHS[int(np.argmax(reached))]
        chosen[what] = (found.strength, max(reached))
    assert chosen["slide"][0] != chosen["patch"][0]
    assert chosen["slide"][1] < 0.8 < chosen["patch"][1]


def test_folds_keep_slides_whole_and_hold_each_patch_out_once() -> None:
    rng = np.random.default_rng(0)
    slides = rng.integers(0, 14, 200)
    labels = (rng.random(200) < 0.3).astype(np.int64)
    folds, what = _folds(labels, [str(slide) for slide in slides], 2, seed=0)
    assert (what, len(folds)) == ("slide", NUM_FOLDS)
    assert sorted(np.concatenate(folds).tolist()) == list(range(200))
    assert all(not set(slides[fold]) & set(np.delete(slides, fold)) for fold in folds)
    shares = [labels[fold].mean() for fold in folds]
    assert max(shares) - min(shares) < 0.2


def test_folds_are_of_patches_where_a_class_is_on_one_slide() -> None:
    labels = np.repeat([0, 1], 10)
    folds, what = _folds(labels, ["a"] * 10 + ["b"] * 10, 2, seed=0)
    assert what == "patch"
    assert [np.bincount(labels[fold]).tolist() for fold in folds] == [[2, 2]] * NUM_FOLDS


def test_nothing_is_chosen_where_a_class_has_one_patch() -> None:
    train, labels = clusters(2, 4, spread=0.1)
    found = logistic_regression(train[3:], labels[3:], [None] * 5, train, 2, seed=0)
    assert (found.strength, found.chosen_by) == (DEFAULT_STRENGTH, "")


def test_a_missing_package_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError) as raised:
        require_scikit_learn()
    assert str(raised.value) == (
        "benchmark probe: scikit-learn is not installed, and logistic regression needs it. "
        "Install it with pip install 'adios-tme[probe]'."
    )
