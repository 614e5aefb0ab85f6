"""Starts, stops and warnings of a run, from its ``train.log`` and its lines of metrics."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from adios_tme.run_folder.metrics import Line

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} (INFO|WARNING|ERROR|CRITICAL) (.*)")
_PROGRESS = re.compile(r"\d+/\d+  ")
_RESUMED = re.compile(r"Resumed .* at iteration (\d+)")
_FRESH = ("Started from ", "Started the mask model")


class Part(NamedTuple):
    """What one start of the training processes has logged of metrics."""

    first: int
    """Iteration of its first line."""
    last: int
    seconds: float
    """It took until its last line."""


@dataclass
class Start:
    """One start of the training processes."""

    time: str
    what: str
    """As the log says it."""
    iteration: int = 0
    """From which it went on."""
    said: list[str] = field(default_factory=list)
    """Warnings after the progress of the start before it."""
    cause: str = ""
    """Why the part before it had ended, as far as files tell."""


@dataclass
class History:
    """What a log tells beside the progress."""

    starts: list[Start] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """Times and texts of what was logged as a warning or worse."""
    seconds: float = 0.0
    """Spent on training, over all starts."""


def read_history(path: Path, metrics: Sequence[Line]) -> History:
    """Read a log; where there is none, only the time is known.

    Args:
        path: The log.
        metrics: Lines of metrics in the order in which they were written.
    """
    if not path.is_file():
        return history_of([], metrics)
    with path.open(encoding="utf-8", errors="replace") as file:
        return history_of(file, metrics)


def history_of(log: Iterable[str], metrics: Sequence[Line]) -> History:
    """See `read_history`."""
    parts = parts_of(metrics)
    history = History(seconds=sum(part.seconds for part in parts))
    said: list[str] = []
    for match in filter(None, map(_LINE.match, log)):
        time, level, text = match.groups()
        resumed = _RESUMED.match(text)
        if resumed or text.startswith(_FRESH):
            at = int(resumed[1]) if resumed else 0
            history.starts.append(Start(time, text, at, said))
            said = []
        elif _PROGRESS.match(text):
            said = []
        elif level != "INFO":
            history.warnings.append((time, text))
            said.append(text)
    _explain(history.starts, parts, _step(metrics))
    return history


def parts_of(metrics: Iterable[Line]) -> list[Part]:
    """Lines of metrics by the starts that wrote them: each counts its seconds from zero."""
    parts: list[Part] = []
    for line in metrics:
        iteration, seconds = line["iteration"], line.get("seconds") or 0.0
        if parts and parts[-1].last < iteration and parts[-1].seconds <= seconds:
            parts[-1] = Part(parts[-1].first, iteration, seconds)
        else:
            parts.append(Part(iteration, iteration, seconds))
    return parts


def _explain(starts: list[Start], parts: Sequence[Part], step: int) -> None:
    """Say of each start but the first how the part before it had ended."""
    place = 0
    for start in starts[1:]:
        lost = 0
        following = parts[place + 1].first if place + 1 < len(parts) else None
        if following is not None and start.iteration < following <= start.iteration + step:
            lost = parts[place].last - start.iteration
            place += 1
        start.cause = _cause(lost, start.said)


def _step(metrics: Sequence[Line]) -> int:
    """Iterations between lines."""
    places = sorted({line["iteration"] for line in metrics})
    return max((b - a for a, b in itertools.pairwise(places)), default=1)


def _cause(lost: int, said: list[str]) -> str:
    how = (
        f"Ended without saving, so that {lost} iterations or more were done again (killed, or "
        f"crashed)."
        if lost > 0
        else "Nothing that was logged is lost: it had most likely saved before it ended (a signal, "
        "a time limit, other machines, or its end)."
    )
    return " ".join([how, *([f"Last warning before it: {said[-1]}"] if said else [])])
