"""Interleaved timing of variants: what is compared are medians over the rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """What one patch took, in seconds."""

    wall: float
    cpu: float | None
    """Of the process that does the work; steadier than the wall on a busy machine. None where the
    system does not tell."""


Timed = Callable[[], Cost]


def interleave(num_rounds: int, variants: dict[str, Timed]) -> dict[str, list[Cost]]:
    """Costs of each variant, round by round; a first round warms up."""
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    for number in range(num_rounds + 1):
        for name, timed in variants.items():
            cost = timed()
            if number:
                costs[name].append(cost)
    return costs


def whole(
    way: Callable[[], object], num_patches: int, tell: Callable[[], None] = lambda: None
) -> Timed:
    """Do something that is many patches at once.

    Args:
        way: What is timed; it waits for its device.
        num_patches: By which the time is divided.
        tell: Called after each timing, as for a progress bar.
    """

    def timed() -> Cost:
        wall, cpu = time.perf_counter(), time.process_time()
        way()
        spent = time.perf_counter() - wall, time.process_time() - cpu
        tell()
        return Cost(spent[0] / num_patches, spent[1] / num_patches)

    return timed


def each(
    function: Callable[[Any], object], items: list[Any], num_patches: int | None = None
) -> Timed:
    """Do something to every item in this process; an item may be many patches."""

    def way() -> None:
        for item in items:
            function(item)

    return whole(way, num_patches or len(items))


def wall(costs: list[Cost]) -> float:
    """Median seconds of a patch."""
    return statistics.median(cost.wall for cost in costs)


def cpu(costs: list[Cost]) -> float | None:
    """Median CPU seconds of a patch; None where the system does not tell."""
    known = [cost.cpu for cost in costs if cost.cpu]
    return statistics.median(known) if len(known) == len(costs) else None


def milliseconds(costs: list[Cost]) -> float:
    """Median milliseconds of a patch."""
    return rounded(wall(costs) * 1000)


def cpu_milliseconds(costs: list[Cost]) -> float | None:
    """Median CPU milliseconds of a patch; None where the system does not tell."""
    seconds = cpu(costs)
    return None if seconds is None else rounded(seconds * 1000)


def speed_ratio(costs: dict[str, list[Cost]], fast: str, slow: str) -> float:
    """How many times as fast one variant is as another, the median over the rounds."""
    pairs = zip(costs[fast], costs[slow], strict=True)
    return rounded(statistics.median(theirs.wall / ours.wall for ours, theirs in pairs))


def cpu_ratio(costs: dict[str, list[Cost]], fast: str, slow: str) -> float | None:
    """The same by CPU time; None where the system does not tell that of both."""
    ratios = [
        theirs.cpu / ours.cpu
        for ours, theirs in zip(costs[fast], costs[slow], strict=True)
        if ours.cpu and theirs.cpu
    ]
    return rounded(statistics.median(ratios)) if len(ratios) == len(costs[fast]) else None


def rounded(value: float) -> float:
    """Four digits that mean something."""
    return float(f"{value:.4g}")
