"""What the nuclei benchmark reports, and the JSON that it is written to and read from.

Users parse that JSON: a name of a field is its key. What a channel, a tissue or a checkpoint has
of scores stands there beside its other fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from adios_tme.data.left_out import LeftOut, from_json
from adios_tme.errors import DataError

RESULTS_NAME = "nuclei_benchmark.json"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Interval:
    """A score over images; None where no image has it."""

    mean: float | None
    std: float | None
    low: float | None
    """Lower end of a bootstrap interval of the mean."""
    high: float | None


@dataclass(frozen=True)
class Scores(Generic[Value]):
    """The same of every score."""

    iou: Value
    dice: Value
    precision: Value
    recall: Value
    auprc: Value
    """Area under precision and recall, which only images with a nucleus have."""
    aji: Value
    pq: Value
    dq: Value
    sq: Value


SCORES = tuple(score.name for score in fields(Scores))
Means = Scores[float | None]
"""None where no image has that score."""


@dataclass(frozen=True)
class ChannelScores:
    """What one channel is worth by itself, at threshold 0.5 over all images."""

    best_share: float
    """The share of images in which it is the oracle's choice."""
    means: Means


@dataclass(frozen=True)
class TissueScores:
    """The test images of one tissue, by the fixed protocol."""

    num_images: int
    means: Means


@dataclass(frozen=True)
class MethodScores:
    """What one method reached."""

    channel: int
    """Of the fixed protocol, counted from 1 as pictures do."""
    threshold: float
    fixed: Scores[Interval]
    """Over the test part."""
    oracle: Scores[Interval]
    """Over all images."""
    random_channel_iou: float
    """A randomly chosen channel, at its own best threshold, over the test part."""
    channels: tuple[ChannelScores, ...]
    tissues: dict[str, TissueScores]
    mean_over_tissues: Means | None
    """Means of their means: each tissue counts alike; None where no tissue is known."""

    @property
    def fixed_iou(self) -> float:
        """The mean IoU of the fixed protocol."""
        mean = self.fixed.iou.mean
        assert mean is not None  # every image has one
        return mean


@dataclass(frozen=True)
class CheckpointScores:
    """What the masks of one checkpoint reached."""

    iteration: int
    sha256: str
    scores: MethodScores
    checkpoint: str
    """Where its file lies."""

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from others, wherever the file lies."""
        return self.iteration, self.sha256


@dataclass
class Cost:
    """Where the time of a benchmark went."""

    num_images: int = 0
    predict_seconds: float = 0.0
    score_seconds: float = 0.0
    """Processor time, summed over processes."""


@dataclass(frozen=True)
class Results:
    """All that the benchmark reports."""

    protocol: dict[str, Any]
    """What was compared with what: data set, split, thresholds, versions."""
    baselines: dict[str, MethodScores]
    """Methods that need no training."""
    checkpoints: tuple[CheckpointScores, ...]
    """Oldest first."""
    left_out: list[dict[str, Any]] = field(default_factory=list)
    """What was not taken from the data set, or converted, and why."""
    cost: Cost = field(default_factory=Cost, compare=False)

    @property
    def newest(self) -> CheckpointScores:
        """Scores of the last checkpoint."""
        return self.checkpoints[-1]

    @property
    def best_baseline(self) -> tuple[str, float]:
        """The method without training that reached most, by fixed IoU."""
        means = {name: method.fixed_iou for name, method in self.baselines.items()}
        return max(means.items(), key=lambda item: item[1])

    def as_json(self) -> dict[str, Any]:
        """The values that are written: all but the cost, which is another one each time."""
        return {
            "protocol": self.protocol,
            "baselines": {name: _method_as_json(each) for name, each in self.baselines.items()},
            "checkpoints": [_checkpoint_as_json(each) for each in self.checkpoints],
            "left_out": self.left_out,
        }


def _method_as_json(scores: MethodScores) -> dict[str, Any]:
    over_tissues = scores.mean_over_tissues
    return asdict(scores) | {
        "channels": [
            {"best_share": each.best_share, **asdict(each.means)} for each in scores.channels
        ],
        "tissues": {
            name: {"num_images": each.num_images, **asdict(each.means)}
            for name, each in scores.tissues.items()
        },
        "mean_over_tissues": asdict(over_tissues) if over_tissues else {},
    }


def _checkpoint_as_json(each: CheckpointScores) -> dict[str, Any]:
    return {
        "iteration": each.iteration,
        "sha256": each.sha256,
        **_method_as_json(each.scores),
        "checkpoint": each.checkpoint,
    }


def _method_of_json(tree: Mapping[str, Any]) -> MethodScores:
    return _METHOD.validate_python(
        {
            **tree,
            "channels": [{**each, "means": each} for each in tree["channels"]],
            "tissues": {name: {**each, "means": each} for name, each in tree["tissues"].items()},
            "mean_over_tissues": tree["mean_over_tissues"] or None,
        }
    )


_METHOD = TypeAdapter(MethodScores)


@dataclass(frozen=True)
class Finished:
    """What was scored earlier."""

    baselines: dict[str, MethodScores] = field(default_factory=dict)
    checkpoints: dict[tuple[int, str], MethodScores] = field(default_factory=dict)
    """By `CheckpointScores.key`."""
    left_out: LeftOut = field(default_factory=LeftOut)


def read_finished(path: Path, protocol: dict[str, Any]) -> Finished:
    """What was scored under the same protocol; nothing if the protocol is another.

    Raises:
        DataError: If the file holds scores of another run or of other images, or something else.
    """
    if not path.is_file():
        return Finished()
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        before, baselines = saved["protocol"], saved["baselines"]
        left_out = from_json(saved.get("left_out", []))
        checkpoints = {
            (each["iteration"], each.get("sha256", "")): each for each in saved["checkpoints"]
        }
        subjects = [(facts.get("run"), facts["path"]) for facts in (before, protocol)]
        finished = Finished()
        if before == protocol:  # else what is there may be another version's
            finished = Finished(
                {name: _method_of_json(tree) for name, tree in baselines.items()},
                {key: _method_of_json(tree) for key, tree in checkpoints.items()},
                left_out,
            )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is not a result of this benchmark. Remove it, or give another --output."
        ) from error
    if subjects[0] != subjects[1]:
        raise DataError(
            f"{path}: holds scores of {subjects[0][0] or 'a run'} on {subjects[0][1]}. "
            f"Give another --output, or remove it."
        )
    return finished
