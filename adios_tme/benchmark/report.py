"""The benchmark's results as a table, a CSV file and a plot, and in words."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from adios_tme.benchmark.nuclei import Results
from adios_tme.viz.figure import colour, save_figure

NAMES = {
    "otsu_haematoxylin": "Otsu on haematoxylin",
    "everything_foreground": "everything foreground",
}
#: Differences of IoU below this are called none.
NOTABLE = 0.01


def results_table(results: Results) -> Table:
    """One row per checkpoint: IoU as mean and standard deviation over images."""
    protocol = results.protocol
    num_test = protocol["num_images"] - protocol["num_calibration"]
    table = Table(
        title=f"Nuclei IoU: fixed channel on {num_test} images, chosen on "
        f"{protocol['num_calibration']} others; oracle on all {protocol['num_images']}",
        caption="Baselines: "
        + ", ".join(f"{NAMES[name]} {value:.3f}" for name, value in results.baselines.items()),
    )
    for name in ("Iteration", "Fixed IoU", "Channel", "From", "Random", "Oracle IoU"):
        table.add_column(name, justify="right", no_wrap=True)
    for scores in results.checkpoints:
        table.add_row(
            str(scores["iteration"]),
            f"{scores['fixed_iou_mean']:.3f} ± {scores['fixed_iou_std']:.3f}",
            str(scores["fixed_channel"]),
            f"{scores['fixed_threshold']:.2f}",
            f"{scores['random_channel_iou_mean']:.3f}",
            f"{scores['oracle_iou_mean']:.3f} ± {scores['oracle_iou_std']:.3f}",
        )
    return table


def in_words(results: Results) -> str:
    """What the newest checkpoint is worth beside the best baseline and a blind choice."""
    scores = results.newest
    model = scores["fixed_iou_mean"]
    name, best = results.best_baseline
    gap = model - best
    if abs(gap) < NOTABLE:
        verdict = f"as good as {NAMES[name]} ({best:.3f})"
    else:
        word = "better" if gap > 0 else "worse"
        verdict = f"{abs(gap):.3f} {word} than {NAMES[name]} ({best:.3f}), the best baseline"
    blind = scores["random_channel_iou_mean"]
    return (
        f"Channel {scores['fixed_channel']} of iteration {scores['iteration']} finds nuclei with "
        f"IoU {model:.3f}: {verdict}. A channel drawn blindly reaches {blind:.3f}."
    )


def write_csv(results: Results, path: Path) -> None:
    """One line per checkpoint, then one per baseline."""
    columns = ["iteration", "fixed_iou_mean", "fixed_iou_std", "fixed_channel", "fixed_threshold"]
    columns += ["random_channel_iou_mean", "oracle_iou_mean", "oracle_iou_std"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["method", *columns], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"method": "mask model", **scores} for scores in results.checkpoints)
        for name, value in results.baselines.items():
            writer.writerow({"method": name, "fixed_iou_mean": value})


def draw_results(results: Results, path: Path) -> None:
    """IoU against iteration with the spread over images, baselines as lines."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    ax = figure.subplots()
    iterations = [scores["iteration"] for scores in results.checkpoints]
    for number, (kind, label) in enumerate(
        (("fixed", "fixed channel"), ("oracle", "oracle channel per image"))
    ):
        means = [scores[f"{kind}_iou_mean"] for scores in results.checkpoints]
        spread = [scores[f"{kind}_iou_std"] for scores in results.checkpoints]
        ax.errorbar(iterations, means, spread, color=colour(number), label=label, capsize=3)
        ax.plot(iterations, means, "o", color=colour(number))
    blind = [scores["random_channel_iou_mean"] for scores in results.checkpoints]
    ax.plot(iterations, blind, ":", marker=".", color="grey", label="random channel")
    for number, (name, value) in enumerate(results.baselines.items(), start=2):
        ax.axhline(value, color=colour(number), linestyle="--", label=NAMES[name])
    ax.set(xlabel="iteration", ylabel="IoU (bars: standard deviation over images)", ylim=(0, 1))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    save_figure(figure, path)
