"""Curves of one or several runs, from their metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adios_tme.errors import DataError
from adios_tme.files import check_suffix
from adios_tme.run_folder.metrics import Line, read_metrics
from adios_tme.viz.figure import SUFFIXES, colour, save_figure


class Panel(NamedTuple):
    """One plot: what it shows, and of which metrics."""

    title: str
    unit: str
    metrics: tuple[str, ...]
    is_log: bool = False


PANELS = (
    Panel("Student loss", "of the objective", ("student_loss",)),
    Panel("Mask model loss", "penalties - objective", ("mask_loss",)),
    Panel("Loss that the masks cause", "of the objective", ("contrastive_loss_mask",)),
    Panel("Sparsity penalty", "", ("sparsity_penalty",)),
    Panel(
        "Other penalties on masks",
        "before they are weighed",
        (
            "area_penalty",
            "entropy_penalty",
            "reconstruction_penalty",
            "edge_penalty",
            "consistency_penalty",
        ),
    ),
    Panel("Adversarial gap", "loss over misplaced masks", ("adversarial_gap",)),
    Panel(
        "IoU with labels",
        "watched images",
        ("eval_fixed_iou", "eval_oracle_iou", "eval_no_labels_iou"),
    ),
    Panel("Mask coverage", "share of the image", ("mask_coverage",)),
    Panel("Haematoxylin under the masks", "correlation", ("mask_haematoxylin_correlation",)),
    Panel(
        "Sharpness of the masks",
        "share",
        ("mask_entropy", "mask_saturation", "mask_overlap"),
    ),
    Panel("Spread of the embeddings", "1 is even, 0 collapsed", ("embedding_std",)),
    Panel("Dimensions of the embeddings", "RankMe", ("rankme",)),
    Panel("Alignment and uniformity", "", ("alignment", "uniformity")),
    Panel("Gradient norms", "before clipping", ("student_grad_norm", "mask_grad_norm"), True),
    Panel("Learning rates", "", ("lr", "mask_lr")),
    Panel("Temperature", "", ("temperature",)),
    Panel("Speed", "images / s", ("images_per_second",)),
    Panel("Waiting for data", "share of the time", ("data_wait_fraction",)),
)
NUM_COLUMNS = 2
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
    save_figure(curves_figure({str(run): read_metrics(run) for run in runs}), path)


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
        series = [item for metric in panel.metrics for item in _series(lines, metric)]
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


def _series(lines: list[Line], metric: str) -> list[tuple[str, list[int], list[float]]]:
    """A metric over iterations; one series for each entry where it is a list."""
    logged = [(line["iteration"], line[metric]) for line in lines if metric in line]
    if not logged:
        return []
    iterations = [iteration for iteration, _ in logged]
    values = [value for _, value in logged]
    if not isinstance(values[0], list):
        return [(metric, iterations, _with_gaps(values))]
    columns = zip(*values, strict=True)
    return [
        (f"mask {number}", iterations, _with_gaps(column))
        for number, column in enumerate(columns, 1)
    ]


def _with_gaps(values: Iterable[float | None]) -> list[float]:
    """What is drawn: nothing where a value is not finite."""
    return [math.nan if value is None else value for value in values]
