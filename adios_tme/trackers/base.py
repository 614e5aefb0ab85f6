"""What a tracker is; the names are those of Accelerate's ``GeneralTracker``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Takes what a run measures; only the first rank has one."""

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the resolved settings, before the first line."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Take a line of metrics.

        Args:
            values: Numbers, lists of numbers, or None for what is not finite.
            step: Finished updates.
        """

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Take pictures by name, as files that are written already."""

    def finish(self, *, failed: bool = False) -> None:
        """Close, after the last line.

        Args:
            failed: Whether an error ended the run.
        """


class ServiceTracker(Tracker, Protocol):
    """A tracker of another package, once its run is open; it may raise anything and take its time.

    Its ``log`` is given numbers alone, as `scalars` makes them.
    """

    run_id: str
    """What a resumed run finds it by."""

    where: str
    """Where users look at it, in words."""

    last_step: int | None
    """The last step that it has of this run at its start; None where it cannot tell."""


@dataclass(frozen=True)
class RunToTrack:
    """What a tracker is told at its start."""

    output_dir: Path
    project: str
    name: str
    iteration: int
    """Finished updates, of which the checkpoint tells that a run resumes from."""
    limit_seconds: float
    """How long the tracker may take to start, and to finish."""
    run_id: str | None = None
    """The tracker's run to go on in; None for a new one."""


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a line by name: lists as ``name/1``, ``name/2``; what is not finite is left out.

    Args:
        values: A line of metrics; texts are left out, too.
    """
    return {
        name: float(value)
        for name, value in flat(values)
        if isinstance(value, int | float) and math.isfinite(value)
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree, named by its path with slashes; lists count from 1."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, list | tuple):
            value = dict(enumerate(value, 1))
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}/")
        else:
            yield name, value
