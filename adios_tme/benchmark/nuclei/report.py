"""The benchmark's results as a table, a CSV file and a plot, and in words."""

from __future__ import annotations

import csv
import resource
from dataclasses import astuple, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from adios_tme.benchmark.nuclei.results import (
    RESULTS_NAME,
    SCORES,
    Interval,
    MethodScores,
    Results,
    Scores,
)
from adios_tme.files import writing
from adios_tme.viz.figure import save_figure
from adios_tme.viz.palette import colour

NAMES = {
    "otsu_haematoxylin": "Otsu on haematoxylin",
    "kmeans_hed": "k-means in HED",
    "everything_foreground": "all foreground",
}
SHOWN = ("iou", "dice", "aji", "pq")
#: Differences of IoU below this are called none.
NOTABLE = 0.01

Value = TypeVar("Value")


def write_report(results: Results, output: Path) -> None:
    """Write ``nuclei_benchmark.csv``, ``.png`` and ``.svg`` beside the JSON file.

    Raises:
        DataError: If one cannot be written.
    """
    stem = output / Path(RESULTS_NAME).stem
    for suffix, write in ((".csv", write_csv), (".png", draw_results), (".svg", draw_results)):
        path = stem.with_suffix(suffix)
        with writing(path):
            write(results, path)


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
        table.add_row(*_row(NAMES[name], scores))
    return table


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


def summary(results: Results) -> str:
    """What the newest checkpoint is worth beside the best baseline and a random one."""
    scores = results.newest.scores
    model = scores.fixed_iou
    name, best = results.best_baseline
    gap = model - best
    if abs(gap) < NOTABLE:
        verdict = f"as good as {NAMES[name]} ({best:.3f})"
    else:
        word = "better" if gap > 0 else "worse"
        verdict = f"{abs(gap):.3f} {word} than {NAMES[name]} ({best:.3f}), the best baseline"
    return (
        f"Channel {scores.channel} of iteration {results.newest.iteration}, from "
        f"{scores.threshold:.2f} on, finds nuclei with IoU {model:.3f}: {verdict}. "
        f"A randomly chosen channel reaches {scores.random_channel_iou:.3f}."
    )


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
    """By the fixed protocol and, without what was chosen, by the oracle."""
    chosen = [scores.channel, scores.threshold, scores.random_channel_iou]
    return [
        [name, iteration, "fixed", *chosen, *_cells(scores.fixed)],
        [name, iteration, "oracle", *[None] * len(chosen), *_cells(scores.oracle)],
    ]


def _cells(scores: Scores[Interval]) -> list[float | None]:
    return [part for score in astuple(scores) for part in score]


def draw_results(results: Results, path: Path) -> None:
    """IoU against iteration with intervals, baselines as lines."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    ax = figure.subplots()
    iterations = [each.iteration for each in results.checkpoints]
    methods = [each.scores for each in results.checkpoints]
    fixed, oracle = [each.fixed.iou for each in methods], [each.oracle.iou for each in methods]
    for number, (iou, label) in enumerate(
        ((fixed, "fixed channel"), (oracle, "oracle channel per image"))
    ):
        bands = [(each.mean, each.low, each.high) for each in iou]
        mean, low, high = np.array(bands, dtype=float).T
        ax.plot(iterations, mean, "o-", color=colour(number), label=label)
        ax.fill_between(iterations, low, high, color=colour(number), alpha=0.2, linewidth=0)
    random = [each.random_channel_iou for each in methods]
    ax.plot(iterations, random, ":", marker=".", color="grey", label="random channel")
    for number, (name, method) in enumerate(results.baselines.items(), start=2):
        ax.axhline(method.fixed_iou, color=colour(number), linestyle="--", label=NAMES[name])
    ax.set(xlabel="iteration", ylabel="IoU (bands: 95 % intervals)", ylim=(0, 1))
    ax.set_title(f"Nuclei on {results.protocol['data_set']}", fontsize=10)
    ax.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    save_figure(figure, path)
