"""What the probes report, and the JSON that it is written to and read from.

Users parse that JSON: a name of a field is its key. Classes are numbered in their order; those of
the test images, and those that were predicted, are numbers in one line of text each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from adios_tme.benchmark.probe.metrics import Interval, Ints
from adios_tme.errors import DataError

RESULTS_NAME = "probe.json"

#: What is probed beside the checkpoints: two that need no training, and features from a file.
RANDOM, COLOUR, GIVEN = "random_encoder", "colour_statistics", "features"
SIMPLE = (COLOUR, RANDOM)


@dataclass(frozen=True)
class ClassifierScores:
    """What one classifier on one kind of features reaches on the test part."""

    balanced_accuracy: Interval
    macro_f1: Interval
    auroc: Interval
    """Mean over classes of each one against the rest."""
    predicted: str
    """The class of each test image, by its number."""
    k: int | None = None
    """Neighbours that voted, of kNN."""
    C: float | None = None
    """Inverse strength of the penalty, of logistic regression."""
    notes: tuple[str, ...] = ()


SCORES = ("balanced_accuracy", "macro_f1", "auroc")


@dataclass(frozen=True)
class MethodScores:
    """Both classifiers on one kind of features."""

    knn: ClassifierScores
    logistic: ClassifierScores


CLASSIFIERS = tuple(each.name for each in fields(MethodScores))


@dataclass(frozen=True)
class RivalScores:
    """What is probed beside the checkpoints."""

    scores: MethodScores
    sha256: str = ""
    """Of its weights, where it has any that were not drawn here."""


@dataclass(frozen=True)
class CheckpointScores:
    """The features of one checkpoint."""

    iteration: int
    sha256: str
    scores: MethodScores
    checkpoint: str
    """Where its file lies."""

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from others, wherever the file lies."""
        return self.iteration, self.sha256


@dataclass(frozen=True)
class Difference:
    """How much higher the newest checkpoint's balanced accuracy is than another method's."""

    classifier: str
    iteration: int
    rival: str
    difference: Interval
    """Paired: both methods on the same resamples of the test part."""


@dataclass(frozen=True)
class SetResults:
    """One training and test part."""

    name: str
    protocol: dict[str, Any]
    """What was fitted to what: folders, classes, split, seed, settings."""
    test_images: tuple[str, ...]
    truth: str
    """The class of each test image, by its number."""
    rivals: dict[str, RivalScores] = field(default_factory=dict)
    checkpoints: tuple[CheckpointScores, ...] = ()
    """Oldest first."""
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def without_scores(cls, name: str, protocol: dict[str, Any]) -> SetResults:
        """Of a set that is to be probed; its protocol as it comes back from the file."""
        return cls(name, json.loads(json.dumps(protocol)), (), "")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers."""
        return tuple(self.protocol["classes"])

    @property
    def subject(self) -> tuple[str, str | None]:
        """Which folders these are scores on."""
        return self.protocol["train"]["path"], self.protocol["test"].get("path")


@dataclass(frozen=True)
class Results:
    """All that the probes report."""

    run: str | None
    sets: tuple[SetResults, ...]

    def as_json(self) -> dict[str, Any]:
        """The values that are written."""
        return {"run": self.run, "sets": _with_named_intervals(list(map(asdict, self.sets)))}


def _with_named_intervals(tree: Any) -> Any:
    """Plain values; an interval is an object with value, low and high."""
    if isinstance(tree, Interval):
        return tree._asdict()
    if isinstance(tree, dict):
        return {name: _with_named_intervals(part) for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_with_named_intervals(part) for part in tree]
    return tree


_SETS = TypeAdapter(tuple[SetResults, ...])


def as_text(numbers: Ints) -> str:
    """Numbers of classes in one line."""
    return " ".join(map(str, numbers.tolist()))


def as_numbers(text: str) -> Ints:
    """Numbers of classes from a line that `as_text` made."""
    return np.array(text.split(), dtype=np.int64)


def read_finished(path: Path, run: str | None, asked: Sequence[SetResults]) -> list[SetResults]:
    """Sets as they were left earlier, in the order in which they are asked for.

    Args:
        path: The file of results.
        run: Whose checkpoints are probed.
        asked: Sets without scores; they stay so where their protocol is another now.

    Raises:
        DataError: If the file holds scores of another run or of other sets, or something else.
    """
    if not path.is_file():
        return list(asked)
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        run_before = saved["run"]
        found = {each.subject: each for each in _SETS.validate_python(saved["sets"])}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is not a result of this benchmark. Remove it, or give another --output."
        ) from error
    others = sorted(set(found) - {each.subject for each in asked}, key=str)
    if run_before != run or others:
        on = f" on {others[0][0]}, which is not asked for now" if others else ""
        raise DataError(
            f"{path}: holds scores of {run_before or 'features'}{on}. "
            f"Give another --output, or remove it."
        )
    return [
        found[each.subject]
        if each.subject in found and found[each.subject].protocol == each.protocol
        else each
        for each in asked
    ]
