"""The two classifiers that are put on frozen features.

Shape legend: N training and M test samples, D width of a feature, C classes.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.probe.metrics import Floats, Ints, balanced_accuracy, once
from adios_tme.errors import ConfigError

#: Inverse strengths of the penalty on squared weights that are tried, the strongest penalty first.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
#: Taken where the training part is too small to choose.
DEFAULT_STRENGTH = 1.0
NUM_FOLDS = 5
MAX_ITERATIONS = 2000
#: Test samples whose similarities are held at a time.
_AT_A_TIME = 1024

Features = NDArray[np.floating[Any]]


def require_scikit_learn() -> None:
    """Raise unless scikit-learn is there.

    Raises:
        ConfigError: Saying how to install it.
    """
    try:
        importlib.import_module("sklearn")
    except ImportError as error:
        raise ConfigError(
            "benchmark probe: scikit-learn is not installed, and logistic regression needs it. "
            "Install it with pip install 'adios-tme[probe]'."
        ) from error


def standardised(train_ND: Features, test_MD: Features) -> tuple[Floats, Floats]:
    """Both parts with the mean and the deviation of the training part; flat features become 0."""
    train_ND, test_MD = train_ND.astype(np.float64), test_MD.astype(np.float64)
    mean_D, std_D = train_ND.mean(axis=0), train_ND.std(axis=0)
    # What rounding alone makes differ is flat.
    is_flat = std_D <= 1e-6 * np.abs(mean_D) + 1e-12
    scale_D = np.where(is_flat, 0, 1 / np.where(is_flat, 1, std_D))
    return (train_ND - mean_D) * scale_D, (test_MD - mean_D) * scale_D


def knn_probabilities(
    train_ND: Features,
    labels_N: Ints,
    test_MD: Features,
    classes: int,
    k: int,
    temperature: float,
) -> Floats:
    """Shares of the votes of the k nearest training samples, DINO's weighting.

    A vote is exp(cosine similarity / temperature) (Caron et al. 2021, arXiv:2104.14294, appendix).

    Returns:
        (M, C), rows adding up to one.
    """
    train, test = _unit_length(train_ND), _unit_length(test_MD)
    k = min(k, len(train))
    one_hot_NC = np.eye(classes)[labels_N]
    shares = []
    for first in range(0, len(test), _AT_A_TIME):
        similarity = test[first : first + _AT_A_TIME] @ train.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(similarity, nearest, axis=1)
        votes = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
        totals = np.einsum("mk,mkc->mc", votes, one_hot_NC[nearest])
        shares.append(totals / votes.sum(axis=1, keepdims=True))
    return np.concatenate(shares)


def _unit_length(features: Features) -> Floats:
    features = features.astype(np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)


class Logistic(NamedTuple):
    """A fitted logistic regression, on the test part."""

    probabilities: Floats
    """Of each class, (M, C)."""
    strength: float
    """Inverse strength of the penalty (scikit-learn's C)."""
    chosen_by: str
    """``slide`` or ``patch``: what the folds keep together; empty where nothing was chosen."""
    converged: bool


def logistic_regression(
    train_ND: Features,
    labels_N: Ints,
    slides: Sequence[str | None],
    test_MD: Features,
    classes: int,
    seed: int,
) -> Logistic:
    """Multinomial logistic regression on standardised features, C chosen on the training part.

    C is the strongest penalty with the best balanced accuracy over held-out folds. Folds keep
    slides together; where that leaves a class out of a fold's training part, they are of patches.

    Args:
        train_ND: Features of the training part.
        labels_N: Their classes; every class has one.
        slides: Their slides; empty, or with None, where they are not known.
        test_MD: Features of the test part.
        classes: How many there are.
        seed: Of the folds.
    """
    folds, chosen_by = _folds(labels_N, slides, classes, seed)
    strength = DEFAULT_STRENGTH
    if folds:
        reached = [
            _held_out_accuracy(train_ND, labels_N, folds, strength, classes)
            for strength in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmax(reached))]
    probabilities, converged = _fit(train_ND, labels_N, test_MD, strength)
    return Logistic(probabilities, strength, chosen_by, converged)


def _held_out_accuracy(
    train_ND: Features, labels_N: Ints, folds: list[Ints], strength: float, classes: int
) -> float:
    predicted_N = np.zeros_like(labels_N)
    for held_out in folds:
        rest = np.setdiff1d(np.arange(len(labels_N)), held_out)
        found, _ = _fit(train_ND[rest], labels_N[rest], train_ND[held_out], strength)
        predicted_N[held_out] = found.argmax(axis=1)
    return float(balanced_accuracy(labels_N, predicted_N, once(len(labels_N)), classes)[0])


def _fit(
    train_ND: Features, labels_N: Ints, test_MD: Features, strength: float
) -> tuple[Floats, bool]:
    """Probabilities on the test part, and whether the fit has converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train, test = standardised(train_ND, test_MD)
    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        model.fit(train, labels_N)
    probabilities: Floats = model.predict_proba(test)
    return probabilities, not any(issubclass(each.category, ConvergenceWarning) for each in raised)


def _folds(
    labels_N: Ints, slides: Sequence[str | None], classes: int, seed: int
) -> tuple[list[Ints], str]:
    """Held-out rows of each fold, and what they keep together; none where it cannot be done."""
    if len(slides) == len(labels_N) and None not in slides:
        by_slide = list(_group_folds(labels_N, [str(slide) for slide in slides], seed))
        if _can_be_fitted(labels_N, by_slide, classes):
            return by_slide, "slide"
    each = [str(row) for row in range(len(labels_N))]
    by_patch = list(_group_folds(labels_N, each, seed))
    return (by_patch, "patch") if _can_be_fitted(labels_N, by_patch, classes) else ([], "")


def _group_folds(labels_N: Ints, groups: Sequence[str], seed: int) -> Iterator[Ints]:
    """Folds with about the same share of each class, groups never divided.

    Groups come in a seeded order, the largest first, each to the fold that has the least of its
    classes.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    counts_GC = np.zeros((len(names), int(labels_N.max()) + 1))
    np.add.at(counts_GC, (numbers, labels_N), 1 / np.bincount(labels_N)[labels_N])
    drawn = np.random.default_rng(seed).permutation(len(names))
    order = drawn[np.argsort(-counts_GC[drawn].max(axis=1), kind="stable")]
    num_folds = min(NUM_FOLDS, len(names))
    filled_FC = np.zeros((num_folds, counts_GC.shape[1]))
    fold_of = np.zeros(len(names), dtype=np.int64)
    for group in order:
        fold = int(np.argmin(filled_FC @ counts_GC[group] + 1e-9 * filled_FC.sum(axis=1)))
        fold_of[group] = fold
        filled_FC[fold] += counts_GC[group]
    for fold in range(num_folds):
        held_out = np.flatnonzero(fold_of[numbers] == fold)
        if len(held_out):
            yield held_out


def _can_be_fitted(labels_N: Ints, folds: list[Ints], classes: int) -> bool:
    """Whether every class stays in the training part of each of two folds or more."""
    return len(folds) > 1 and all(
        len(np.unique(np.delete(labels_N, held_out))) == classes for held_out in folds
    )
