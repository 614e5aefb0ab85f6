"""Which metrics are drawn together, and where they are read from; needs no plotting library."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from adios_tme.errors import DataError
from adios_tme.run_folder.layout import METRICS

Line = dict[str, Any]


class Panel(NamedTuple):
    """One plot: what it shows, and of which metrics."""

    title: str
    unit: str
    metrics: tuple[str, ...]
    is_log: bool = False


PANELS = (
    Panel("Student loss", "nats", ("student_loss",)),
    Panel("Mask model loss", "alpha penalty - nats", ("mask_loss",)),
    Panel("Contrastive loss that the masks cause", "nats", ("contrastive_loss_mask",)),
    Panel("Sparsity penalty", "", ("sparsity_penalty",)),
    Panel(
        "Other penalties on masks",
        "before they are weighed",
        ("area_penalty", "reconstruction_penalty", "edge_penalty", "consistency_penalty"),
    ),
    Panel("Adversarial gap", "nats over misplaced masks", ("adversarial_gap",)),
    Panel("IoU with labels", "watched images", ("eval_fixed_iou", "eval_oracle_iou")),
    Panel("Mask coverage", "share of the image", ("mask_coverage",)),
    Panel("Haematoxylin under the masks", "correlation", ("mask_haematoxylin_correlation",)),
    Panel(
        "Sharpness of the masks",
        "share",
        ("mask_entropy", "mask_saturation", "mask_overlap"),
    ),
    Panel("Gradient norms", "before clipping", ("student_grad_norm", "mask_grad_norm"), True),
    Panel("Learning rates", "", ("lr", "mask_lr")),
    Panel("Temperature", "", ("temperature",)),
    Panel("Speed", "images / s", ("images_per_second",)),
    Panel("Waiting for data", "share of the time", ("data_wait_fraction",)),
)


def read_metrics(run: Path) -> list[Line]:
    """Lines of a run's log by iteration; what a resumed run repeated counts as it was last.

    Raises:
        DataError: As `read_lines`.
    """
    return last_of_each(read_lines(run))


def last_of_each(lines: Iterable[Line]) -> list[Line]:
    """The last line of each iteration, by iteration."""
    by_iteration = {line["iteration"]: line for line in lines}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def read_lines(run: Path) -> list[Line]:
    """Lines of a run's log in the order in which they were written.

    Raises:
        DataError: If there is no log, nothing in it, or something that is no line of metrics.
    """
    path = run / METRICS
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Give the output folder of a run."
        ) from error
    complete = text[: text.rfind("\n") + 1].splitlines()  # a killed run may end within a line
    lines: list[Line] = []
    for number, content in enumerate(complete, start=1):
        try:
            line = json.loads(content)
            hash(line["iteration"])
            lines.append(line)
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{path}: line {number} holds no metrics of an iteration. "
                f"Remove the line, or give the output folder of a run."
            ) from error
    if not lines:
        raise DataError(f"{path}: holds no metrics yet. Wait for the run's first log line.")
    return lines


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
