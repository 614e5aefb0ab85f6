"""The benchmark's results as tables, a CSV file and a plot."""

from __future__ import annotations

import csv
import resource
from dataclasses import astuple, fields
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from adios_tme.benchmark.nuclei.results import (
    CLEANED,
    RESULTS_NAME,
    SCORES,
    SEGMENTATIONS,
    Interval,
    MethodScores,
    Results,
    Scores,
)
from adios_tme.benchmark.nuclei.verdict import IN_WORDS, NAMES
from adios_tme.benchmark.results_file import write_beside
from adios_tme.viz.palette import colour

SHOWN = ("iou", "dice", "aji", "pq")
#: What baselines are called in tables; a cleaned one stands below its own raw one.
ROWS = {
    "otsu_haematoxylin": "Otsu on haematoxylin",
    "otsu_haematoxylin_cleaned": "  cleaned",
    "otsu_macenko": "Otsu by Macenko",
    "otsu_macenko_cleaned": "  cleaned",
    "kmeans_hed": "k-means in HED",
    "everything_foreground": "all foreground",
}
#: Numbers of their colours in the plot: one for raw and cleaned.
COLOURS = {"otsu_haematoxylin": 5, "otsu_macenko": 7, "kmeans_hed": 4, "everything_foreground": 6}


class Panel(NamedTuple):
    """One half of the plot."""

    title: str
    is_cleaned: bool
    protocols: dict[int, str]
    """By the numbers of their colours."""


PANELS = (
    Panel("masks as they are", False, {0: "fixed", 2: "no_labels", 1: "oracle"}),
    Panel(
        "cleaned",
        True,
        {
            0: "fixed_cleaned",
            2: "no_labels_cleaned",
            4: "no_labels_by_area",
            3: "no_labels_with_stain",
        },
    ),
)

#: Headings of `SEGMENTATIONS` but the first: how channel and threshold were chosen, and then what.
NO_LABELS_COLUMNS = (
    ("fixed,", "cleaned"),
    ("no labels", ""),
    ("no labels,", "cleaned"),
    ("no labels,", "by area"),
    ("no labels,", "with stain"),
)

Value = TypeVar("Value")


def write_report(results: Results, output: Path) -> None:
    """Write ``nuclei_benchmark.csv``, ``.png`` and ``.svg`` beside the JSON file.

    Raises:
        DataError: If one cannot be written.
    """
    write_beside(output / RESULTS_NAME, results, write_csv, draw_results)


def results_table(results: Results) -> Table:
    """One row per checkpoint, then the baselines; oracle and fixed figures in columns apart."""
    protocol = results.protocol
    num_test = protocol["num_images"] - protocol["num_calibration"]
    table = _table(
        f"Nuclei, {protocol['data_set']}: fixed on {num_test} images, chosen on "
        f"{protocol['num_calibration']} others; oracle on all {protocol['num_images']}"
    )
    table.add_column("Method", no_wrap=True)
    for name in ("IoU [95 %]", *(score.upper() for score in SHOWN[2:]), "Oracle IoU", "Random"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in results.checkpoints:
        table.add_row(*_row(f"iteration {each.iteration}", each.scores))
    table.add_section()
    for name, scores in results.baselines.items():
        table.add_row(*_row(ROWS[name], scores))
    return table


def no_labels_table(results: Results) -> Table:
    """What is reached where nobody has a label, and by cleaning; mean IoU and AJI."""
    table = _table("Cleaned, and without labels, on the same test images: IoU AJI")
    table.add_column("Method", no_wrap=True)
    for choice, by in NO_LABELS_COLUMNS:
        table.add_column(f"{choice}\n{by}", justify="right", no_wrap=True)
    for each in results.checkpoints:
        found = [getattr(each.scores, name) for name in SEGMENTATIONS[1:]]
        table.add_row(f"iteration {each.iteration}", *map(_pair, found))
    table.add_section()
    for name, scores in results.baselines.items():
        raw = (None, scores.no_labels, None, None, None)
        cleaned = (scores.fixed, None, scores.no_labels, None, None)
        shown = cleaned if name.endswith(CLEANED) else raw
        table.add_row(ROWS[name], *map(_pair, shown))
    return table


def _pair(scores: Scores[Interval] | None) -> str:
    """Without leading zeros, so that five fit beside a name."""
    if scores is None:
        return ""
    means = (scores.iou.mean, scores.aji.mean)
    return " ".join(f"{mean:.3f}".removeprefix("0") for mean in means)


def channels_table(results: Results) -> Table:
    """What each channel of the newest checkpoint is worth by itself."""
    table = _table("Channels of the newest checkpoint at 0.5, over all images")
    table.add_column("Channel")
    for name in ("Best one of", *(score.upper() for score in SHOWN)):
        table.add_column(name, justify="right")
    for number, channel in enumerate(results.newest.scores.channels, start=1):
        share = f"{channel.best_share:.0%} of images"
        table.add_row(str(number), share, *(f"{mean:.3f}" for mean in _shown(channel.means)))
    return table


def _table(title: str) -> Table:
    """Narrow enough for a terminal of eighty columns."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)


def _shown(scores: Scores[Value]) -> tuple[Value, ...]:
    """Those of `SHOWN`."""
    return tuple(getattr(scores, name) for name in SHOWN)


def _row(name: str, scores: MethodScores) -> list[str]:
    iou, oracle = scores.fixed.iou, scores.oracle.iou
    interval = f"{iou.mean:.3f} [{iou.low:.3f}, {iou.high:.3f}]"
    others = [f"{score.mean:.3f}" for score in _shown(scores.fixed)[2:]]
    random = f"{scores.random_channel_iou:.3f}"
    return [name, interval, *others, f"{oracle.mean:.3f}±{oracle.std:.3f}", random]


def tissues_table(results: Results) -> Table | None:
    """The newest checkpoint by tissue; None where tissues are unknown."""
    newest = results.newest.scores
    if not newest.mean_over_tissues:
        return None
    table = _table("Fixed channel of the newest checkpoint by tissue")
    table.add_column("Tissue")
    for name in ("Images", *(score.upper() for score in SHOWN)):
        table.add_column(name, justify="right")
    for name, tissue in newest.tissues.items():
        means = (f"{mean:.3f}" for mean in _shown(tissue.means))
        table.add_row(name, str(tissue.num_images), *means)
    table.add_section()
    over_tissues = (f"{mean:.3f}" for mean in _shown(newest.mean_over_tissues))
    over_images = (f"{score.mean:.3f}" for score in _shown(newest.fixed))
    table.add_row("mean over tissues", "", *over_tissues)
    table.add_row("mean over images", "", *over_images)
    return table


def cost_summary(results: Results, num_workers: int) -> str:
    """Where time and memory went."""
    cost = results.cost
    if not cost.num_images:
        return "Nothing was scored now: everything was done before."
    each = 1000 / cost.num_images
    peaks = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return (
        f"{cost.num_images} images: {cost.predict_seconds * each:.1f} ms an image to predict, "
        f"{cost.score_seconds * each:.1f} ms an image and core to score, on {num_workers} "
        f"processes. Peak memory {peaks[0] / 2**20:.2f} GiB here, {peaks[1] / 2**20:.2f} GiB in "
        f"the largest child."
    )


def write_csv(results: Results, path: Path) -> None:
    """One line per method and protocol: mean, deviation and interval of each score."""
    columns = ["method", "iteration", "protocol", "channel", "threshold", "random_channel_iou"]
    parts = [part.name for part in fields(Interval)]
    columns += [f"{score}_{part}" for score in SCORES for part in parts]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for each in results.checkpoints:
            writer.writerows(_csv_lines("mask model", each.iteration, each.scores))
        for name, scores in results.baselines.items():
            writer.writerows(_csv_lines(name, None, scores))


def _csv_lines(name: str, iteration: int | None, scores: MethodScores) -> list[list[object]]:
    """By each protocol; by the oracle without what was chosen."""
    blind = scores.no_labels_choice
    chosen: dict[str, list[object]] = {
        "fixed": [scores.channel, scores.threshold, scores.random_channel_iou],
        "oracle": [None, None, None],
        "no_labels": [blind.channel, blind.threshold, None],
    }
    chosen["fixed_cleaned"] = [scores.channel, scores.threshold, None]
    chosen["no_labels_cleaned"] = chosen["no_labels"]
    chosen["no_labels_by_area"] = [blind.channel, None, None]
    chosen["no_labels_with_stain"] = chosen["no_labels_by_area"]
    return [
        [name, iteration, protocol, *choice, *_cells(found)]
        for protocol, choice in chosen.items()
        if (found := getattr(scores, protocol)) is not None
    ]


def _cells(scores: Scores[Interval]) -> list[float | None]:
    return [part for score in astuple(scores) for part in score]


def draw_results(results: Results) -> Figure:
    """IoU against iteration with intervals, baselines as lines; what is cleaned apart."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    iterations = [each.iteration for each in results.checkpoints]
    for ax, panel in zip(figure.subplots(1, 2, sharey=True), PANELS, strict=True):
        for number, protocol in panel.protocols.items():
            mean, low, high = _bands(results, protocol).T
            label = IN_WORDS[protocol]
            ax.plot(iterations, mean, "o-", ms=4, color=colour(number), label=label)
            ax.fill_between(iterations, low, high, color=colour(number), alpha=0.15, linewidth=0)
        if not panel.is_cleaned:
            random = [each.scores.random_channel_iou for each in results.checkpoints]
            ax.plot(iterations, random, ":", marker=".", color="grey", label="random channel")
        for name, method in results.baselines.items():
            if name.endswith(CLEANED) == panel.is_cleaned:
                line = colour(COLOURS[name.removesuffix(CLEANED)])
                ax.axhline(method.fixed_iou, color=line, linestyle="--", label=NAMES[name])
        ax.set(xlabel="iteration", title=panel.title, ylim=(0, 1))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    figure.axes[0].set_ylabel("IoU (bands: 95 % intervals)")
    figure.suptitle(f"Nuclei on {results.protocol['data_set']}", fontsize=11)
    return figure


def _bands(results: Results, protocol: str) -> NDArray[np.float64]:
    """IoU of each checkpoint: mean, lower and upper end of its interval."""
    found = [getattr(each.scores, protocol).iou for each in results.checkpoints]
    return np.array([(each.mean, each.low, each.high) for each in found], dtype=float)
