"""Which metrics are drawn together; needs no plotting library."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from adios_tme.run_folder.metrics import Line


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
            "stain_penalty",
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


def series_of(lines: list[Line], metric: str) -> list[tuple[str, list[int], list[float]]]:
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
