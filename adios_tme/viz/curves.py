"""Curves of one or several runs, from their metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adios_tme.errors import DataError
from adios_tme.files import check_suffix
from adios_tme.run_folder.metrics import Line, read_metrics
from adios_tme.viz.figure import SUFFIXES, save_figure
from adios_tme.viz.palette import colour
from adios_tme.viz.panels import PANELS, Panel, series_of
from adios_tme.viz.report.run_files import read_settings
from adios_tme.viz.report.settings import differing_settings

NUM_COLUMNS = 2
#: Settings that differ between runs, in the names of their curves.
MOST_SETTINGS = 3
STYLES = ("-", "--", ":", "-.")


def draw_curves(runs: Sequence[Path], path: Path) -> None:
    """Draw every loss, the mask coverage and what else a run logs, against iterations.

    Args:
        runs: Output folders; each run has a colour of its own.
        path: PNG or SVG file; its folder is made.

    Raises:
        ConfigError: If the file's suffix is neither.
        DataError: If a run has no metrics, or the runs have none that is drawn.
        OSError: If the file cannot be written.
    """
    check_suffix(path, SUFFIXES)
    lines = [read_metrics(run) for run in runs]
    save_figure(curves_figure(dict(zip(_names(runs), lines, strict=True))), path)


def _names(runs: Sequence[Path]) -> list[str]:
    """Runs with what differs between their settings."""
    differing = differing_settings({str(run): read_settings(run) for run in runs})
    names = []
    for number, run in enumerate(runs):
        told = [f"{flag} {values[number]}" for flag, values in differing[:MOST_SETTINGS]]
        more = f" and {len(differing) - len(told)} more" if len(differing) > len(told) else ""
        names.append(f"{run}: {', '.join(told)}{more}" if told else str(run))
    return names


def curves_figure(runs: dict[str, list[Line]]) -> Figure:
    """The picture that `draw_curves` writes; what no run has logged is left out.

    Raises:
        DataError: If nothing is left.
    """
    logged = {metric for lines in runs.values() for line in lines for metric in line}
    panels = [panel for panel in PANELS if not logged.isdisjoint(panel.metrics)]
    if not panels:
        raise DataError(
            f"{', '.join(runs)}: no metric that is drawn, such as {PANELS[0].metrics[0]}, was "
            f"logged. Give output folders of adios-tme train."
        )
    num_rows = math.ceil(len(panels) / NUM_COLUMNS)
    figure = Figure(figsize=(5.2 * NUM_COLUMNS, 2.5 * num_rows + 0.6), layout="constrained")
    axes = figure.subplots(num_rows, NUM_COLUMNS, squeeze=False)
    for panel, ax in zip(panels, axes.flat, strict=False):
        _draw_panel(ax, panel, runs)
    for unused in axes.flat[len(panels) :]:
        unused.remove()
    if len(runs) > 1:
        handles = [
            Line2D([], [], color=colour(number), label=name) for number, name in enumerate(runs)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8)
    else:
        figure.suptitle(next(iter(runs)), fontsize=10)
    return figure


def _draw_panel(ax: Axes, panel: Panel, runs: dict[str, list[Line]]) -> None:
    ax.set_title(panel.title, fontsize=9)
    ax.set_xlabel("iteration", fontsize=8)
    ax.set_ylabel(panel.unit, fontsize=8)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.3)
    for run_number, lines in enumerate(runs.values()):
        series = [item for metric in panel.metrics for item in series_of(lines, metric)]
        for number, (label, iterations, values) in enumerate(series):
            alone = len(runs) == 1
            ax.plot(
                iterations,
                values,
                color=colour(number if alone else run_number),
                linestyle="-" if alone else STYLES[number % len(STYLES)],
                label=label if len(series) > 1 and run_number == 0 else None,
                linewidth=1.3,
                marker="." if len(values) < 3 else "",
            )
        if len(series) > 1 and run_number == 0:
            ax.legend(fontsize=7)
    if panel.is_log:
        ax.set_yscale("log")
