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


#: What is scored over the test part: protocol by protocol, the mask as it is and cleaned.
SEGMENTATIONS = (
    "fixed",
    "fixed_cleaned",
    "no_labels",
    "no_labels_cleaned",
    "no_labels_by_area",
    "no_labels_with_stain",
)
#: Scores of which each image's is kept, so that two methods can be compared image by image.
PAIRED = ("iou", "aji", "pq")
#: Digits that are kept of them.
PAIRED_DIGITS = 4
#: How a baseline is named whose mask is cleaned.
CLEANED = "_cleaned"


@dataclass(frozen=True)
class Difference:
    """How much higher a score is than another's on the same images, on average."""

    than: str
    """The other method, or the other iteration."""
    mean: float
    low: float | None
    """Lower end of a paired bootstrap interval over images; None on a single image."""
    high: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


Differences = dict[str, dict[str, Difference]]
"""By the names of `SEGMENTATIONS` and `PAIRED`."""


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
class NoLabelsChoice:
    """What was chosen on the images of the calibration part, without their labels."""

    channel: int
    """The one that goes with the haematoxylin most, counted from 1."""
    threshold: float
    """Otsu's, on the values of that channel over all of these images."""
    correlation: tuple[float, ...]
    """Of each channel with the haematoxylin, mean over these images."""


@dataclass(frozen=True)
class MethodScores:
    """What one method reached."""

    channel: int
    """Of the fixed protocol, counted from 1 as pictures do."""
    threshold: float
    fixed: Scores[Interval]
    """Over the test part."""
    fixed_cleaned: Scores[Interval] | None
    """The same channel, smoothed, from the same threshold on, and cleaned; None for baselines."""
    no_labels: Scores[Interval]
    """Channel and threshold chosen without a label, over the test part."""
    no_labels_cleaned: Scores[Interval] | None
    no_labels_by_area: Scores[Interval] | None
    """That channel, smoothed, on as many pixels of each image as cleaned Otsu takes, cleaned."""
    no_labels_with_stain: Scores[Interval] | None
    """That channel and the haematoxylin together; see `adios_tme.inference.clean`."""
    no_labels_choice: NoLabelsChoice
    oracle: Scores[Interval]
    """Over all images."""
    random_channel_iou: float
    """A randomly chosen channel, at its own best threshold, over the test part."""
    channels: tuple[ChannelScores, ...]
    tissues: dict[str, TissueScores]
    mean_over_tissues: Means | None
    """Means of their means: each tissue counts alike; None where no tissue is known."""
    per_image: dict[str, dict[str, tuple[float, ...]]]
    """By the names of `SEGMENTATIONS` and `PAIRED`: the scores of each image of the test part; and
    by the oracle's, of all images."""

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
    differences: Differences = field(default_factory=dict)
    """From the strongest baseline of the same kind."""

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from others, wherever the file lies."""
        return self.iteration, self.sha256


@dataclass(frozen=True)
class Course:
    """How one segmentation went along the run."""

    best: int
    """Iteration of the checkpoint with the highest IoU."""
    last: int
    last_minus_best: dict[str, Difference]
    """By score."""


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
    course: dict[str, Course] = field(default_factory=dict)
    """By segmentation, and the oracle: the best checkpoint, and what the last one has of it."""

    @property
    def newest(self) -> CheckpointScores:
        """Scores of the last checkpoint."""
        return self.checkpoints[-1]

    def as_json(self) -> dict[str, Any]:
        """The values that are written: all but the cost, which is another one each time."""
        return {
            "protocol": self.protocol,
            "baselines": {name: _method_as_json(each) for name, each in self.baselines.items()},
            "checkpoints": [_checkpoint_as_json(each) for each in self.checkpoints],
            "course": {name: asdict(each) for name, each in self.course.items()},
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
        "per_image": {
            name: {score: _packed(values) for score, values in each.items()}
            for name, each in scores.per_image.items()
        },
    }


def _checkpoint_as_json(each: CheckpointScores) -> dict[str, Any]:
    return {
        "iteration": each.iteration,
        "sha256": each.sha256,
        **_method_as_json(each.scores),
        "checkpoint": each.checkpoint,
        "differences": {
            name: {score: asdict(difference) for score, difference in differences.items()}
            for name, differences in each.differences.items()
        },
    }


def _packed(values: tuple[float, ...]) -> str:
    """A line of text: as a list, each of thousands of numbers would have a line of its own."""
    return " ".join(f"{value:.{PAIRED_DIGITS}f}" for value in values)


def _method_of_json(tree: Mapping[str, Any]) -> MethodScores:
    return _METHOD.validate_python(
        {
            **tree,
            "channels": [{**each, "means": each} for each in tree["channels"]],
            "tissues": {name: {**each, "means": each} for name, each in tree["tissues"].items()},
            "mean_over_tissues": tree["mean_over_tissues"] or None,
            "per_image": {
                name: {score: text.split() for score, text in each.items()}
                for name, each in tree["per_image"].items()
            },
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
