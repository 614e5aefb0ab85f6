"""Curves as the page's charts take them: one list of iterations, one list of values a curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from adios_tme.run_folder.metrics import Line
from adios_tme.viz.panels import PANELS, Panel, series_of

#: Lines of the log that a curve shows one by one. Of more, each pair of points is the least and the
#: greatest value of as many lines, so that no peak is lost.
MOST_LINES = 1200

Chart = dict[str, Any]


def charts_of(runs: Mapping[str, list[Line]]) -> list[Chart]:
    """A chart for each panel of which something was logged.

    Args:
        runs: Lines of each run by its name; with several, a colour is a run.
    """
    return [chart for panel in PANELS if (chart := _chart(panel, runs)) is not None]


def _chart(panel: Panel, runs: Mapping[str, list[Line]]) -> Chart | None:
    curves: list[dict[str, Any]] = []
    values: list[dict[int, float | None]] = []
    for run_number, (run, lines) in enumerate(runs.items()):
        logged = [item for metric in panel.metrics for item in series_of(lines, metric)]
        for number, (label, iterations, raw) in enumerate(logged):
            alone = len(runs) == 1
            name = label.replace("_", " ")
            curves.append(
                {
                    "label": name if alone else run if len(logged) == 1 else f"{run}: {name}",
                    "colour": number if alone else run_number,
                    "dash": 0 if alone else number,
                }
            )
            values.append(_thinned(iterations, raw))
    if not curves:
        return None
    places = sorted(set().union(*values))
    columns = [[each.get(place) for place in places] for each in values]
    return {
        "title": panel.title,
        "unit": panel.unit,
        "log": panel.is_log,
        "curves": curves,
        "data": [places, *columns],
    }


def _thinned(iterations: Sequence[int], values: Sequence[float]) -> dict[int, float | None]:
    """Values by iteration, rounded; of many lines, the extremes of each stretch."""
    step = math.ceil(len(values) / MOST_LINES)
    if step <= 2:
        return {at: _rounded(value) for at, value in zip(iterations, values, strict=True)}
    kept: dict[int, float | None] = {}
    for begin in range(0, len(values), step):
        finite = [
            number
            for number in range(begin, min(begin + step, len(values)))
            if math.isfinite(values[number])
        ]
        if not finite:
            kept[iterations[begin]] = None
        for number in sorted({f(finite, key=values.__getitem__) for f in (min, max) if finite}):
            kept[iterations[number]] = _rounded(values[number])
    return kept


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
