"""Both classifiers of one set, fitted to the features of one method and scored on the test part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.probe.classifiers import (
    MAX_ITERATIONS,
    knn_probabilities,
    logistic_regression,
    standardised,
)
from adios_tme.benchmark.probe.metrics import Floats, Ints, group_numbers, score
from adios_tme.benchmark.probe.results import ClassifierScores, MethodScores, as_text
from adios_tme.benchmark.probe.samples import Parts
from adios_tme.config.commands.probe import ProbeConfig

Features = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Fit:
    """What is the same for every method on a set."""

    labels: Ints
    """Of the training part."""
    slides: tuple[str | None, ...]
    """Of the training part."""
    truth: Ints
    groups: Ints
    """What of the test part is resampled together."""
    by_slide: bool
    """Whether that is slides."""
    num_classes: int
    k: int
    temperature: float
    seed: int

    @classmethod
    def of(cls, parts: Parts[Any], config: ProbeConfig) -> Fit:
        """For the parts of a set."""
        groups, by_slide = group_numbers(parts.test.slides, len(parts.test))
        return cls(
            labels=parts.train.numbers(parts.classes),
            slides=parts.train.slides,
            truth=parts.test.numbers(parts.classes),
            groups=groups,
            by_slide=by_slide,
            num_classes=len(parts.classes),
            k=min(config.k, len(parts.train)),
            temperature=config.knn_temperature,
            seed=config.seed,
        )

    def __call__(
        self, train_ND: Features, test_ID: Features, *, standardise: bool = False
    ) -> MethodScores:
        """Fit to the training part and score on the test part.

        Args:
            train_ND: Features of the training part.
            test_ID: Features of the test part.
            standardise: Whether kNN looks at standardised features; logistic regression always
                does.
        """
        near = standardised(train_ND, test_ID) if standardise else (train_ND, test_ID)
        votes = knn_probabilities(
            near[0], self.labels, near[1], self.num_classes, self.k, self.temperature
        )
        linear = logistic_regression(
            train_ND, self.labels, self.slides, test_ID, self.num_classes, self.seed
        )
        notes = []
        if not linear.chosen_by:
            notes.append("The training part is too small to choose C on it.")
        elif linear.chosen_by == "patch" and None not in self.slides:
            notes.append("C was chosen by patch: no fold by slide leaves every class to fit.")
        if not linear.converged:
            notes.append(f"It had not converged after {MAX_ITERATIONS} iterations.")
        return MethodScores(
            knn=self._scores(votes, k=self.k),
            logistic=self._scores(linear.probabilities, C=linear.strength, notes=tuple(notes)),
        )

    def _scores(self, probabilities_IC: Floats, **facts: Any) -> ClassifierScores:
        reached = score(self.truth, probabilities_IC, self.groups, self.seed)
        return ClassifierScores(
            *reached, predicted=as_text(probabilities_IC.argmax(axis=1)), **facts
        )
