"""What a run tells of one of its checkpoints: settings, the end of its curves, scores of its masks.

Logs and scores are optional, and what cannot be used of them is told instead of stopping an export.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adios_tme.config.train import TrainConfig
from adios_tme.errors import DataError
from adios_tme.run_folder.checkpoints import checkpoint_digest
from adios_tme.run_folder.layout import METRICS
from adios_tme.run_folder.metrics import read_metrics

#: As the nuclei benchmark writes it; in the run's folder or one in it.
SCORES_NAME = "nuclei_benchmark.json"
SHOWN_SCORES = ("iou", "dice", "aji", "pq")

Interval = tuple[float, float | None, float | None]
"""A mean, and the ends of its interval where it has one."""


@dataclass(frozen=True)
class ScoreRow:
    """What one method reached by one protocol, over images."""

    method: str
    protocol: str
    scores: Mapping[str, Interval | None]


@dataclass(frozen=True)
class NucleiScores:
    """Scores of a checkpoint's masks, and of what needs no training."""

    data_set: str
    num_images: int
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True)
class RunFacts:
    """What a card is written from."""

    iteration: int
    samples_seen: int
    version: str
    settings: Mapping[str, Any]
    """The resolved settings of the run, by section."""
    curves: Mapping[str, Any]
    """The newest value of each metric at that iteration."""
    nuclei: NucleiScores | None
    licence: str | None
    left_out: tuple[str, ...] = ()
    """Why something is not told."""


def run_facts(
    checkpoint: Path, state: Mapping[str, Any], config: TrainConfig, licence: str | None
) -> RunFacts:
    """Gather what is known of a checkpoint.

    Args:
        checkpoint: Its file, in the run's folder.
        state: What it holds.
        config: Its settings.
        licence: Of the weights.
    """
    left_out: list[str] = []
    return RunFacts(
        iteration=state["iteration"],
        samples_seen=state.get("samples_seen", 0),
        version=state.get("version", "of an earlier release"),
        settings=config.model_dump(mode="json"),
        curves=_curves(checkpoint.parent, state["iteration"], left_out),
        nuclei=_nuclei(checkpoint, left_out),
        licence=licence,
        left_out=tuple(left_out),
    )


def _curves(run: Path, iteration: int, left_out: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if not (run / METRICS).is_file():
        return values
    try:
        for line in read_metrics(run):
            if line["iteration"] <= iteration:
                values |= line
    except DataError as error:
        left_out.append(f"curves in the model card. {error}")
    return values


def _nuclei(checkpoint: Path, left_out: list[str]) -> NucleiScores | None:
    run = checkpoint.parent
    for path in sorted([*run.glob(SCORES_NAME), *run.glob(f"*/{SCORES_NAME}")]):
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            digest = checkpoint_digest(checkpoint)
            scored = [each for each in results["checkpoints"] if each["sha256"] == digest]
            if scored:
                rows = (*_rows("masks", scored[-1]), *_rows_of_baselines(results["baselines"]))
                facts = results["protocol"]
                return NucleiScores(Path(facts["path"]).name, facts["num_images"], rows)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            left_out.append(
                f"scores in the model card. {path}: is no result of the nuclei benchmark "
                f"({type(error).__name__}). Remove it, or run adios-tme benchmark nuclei again."
            )
    return None


def _rows_of_baselines(baselines: Mapping[str, Any]) -> Iterator[ScoreRow]:
    for name, method in baselines.items():
        yield from (row for row in _rows(name, method) if row.protocol == "fixed")


def _rows(name: str, method: Mapping[str, Any]) -> Iterator[ScoreRow]:
    """A row for each protocol that a method was scored by."""
    for protocol, scores in method.items():
        if isinstance(scores, dict) and isinstance(scores.get("iou"), dict):
            shown = {score: _interval(scores[score]) for score in SHOWN_SCORES}
            yield ScoreRow(name, protocol, shown)


def _interval(score: Mapping[str, Any]) -> Interval | None:
    return None if score["mean"] is None else (score["mean"], score["low"], score["high"])
