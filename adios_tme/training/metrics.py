"""Lines of metrics: what a step reported, read from the device and averaged over ranks."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from adios_tme.distributed.collectives import mean_over_ranks, sum_over_ranks
from adios_tme.optim.schedule import Schedule
from adios_tme.training.mask_diagnostics import Diagnostics
from adios_tme.training.state import Run
from adios_tme.training.step import Report


class Metrics:
    """Measures lines, and the time between them.

    Args:
        run: The run.
        epoch_length: Samples of an epoch.
    """

    def __init__(self, run: Run, epoch_length: int) -> None:
        self._run = run
        self._epoch_length = epoch_length
        self._start = self._last_time = time.perf_counter()
        self._last_iteration = run.iteration
        self._waited = 0.0
        self._of_mask_half: dict[str, Tensor] = {}

    def note(self, report: Report, wait_seconds: float) -> None:
        """Take note of a step: the newest mask half, and the time that was waited for data."""
        self._waited += wait_seconds
        if report.mask_loss is not None:
            self._of_mask_half = _scalars(report) | dict(report.penalties)

    def line(
        self, report: Report, diagnostics: Diagnostics, now: Schedule, num_corrupt: int
    ) -> dict[str, Any]:
        """Read the device and the clock (host sync), and average over ranks; a collective."""
        run = self._run
        of_mask_half = {} if now.mask_is_frozen else self._of_mask_half
        values = _read(_scalars(report) | of_mask_half | vars(diagnostics))
        (num_damaged,) = sum_over_ranks(num_corrupt)
        seconds = time.perf_counter() - self._last_time
        num_images = (run.iteration - self._last_iteration) * run.global_batch_size
        waited, self._waited = self._waited, 0.0
        self._last_time += seconds
        self._last_iteration = run.iteration
        return {
            "iteration": run.iteration,
            "samples_seen": run.samples_seen,
            "epoch": run.samples_seen / self._epoch_length,
            **values,
            **({"temperature": now.temperature} if run.config.loss.objective == "simclr" else {}),
            "lr": now.lr,
            "mask_lr": now.mask_lr,
            "images_per_second": num_images / seconds,
            "data_wait_fraction": min(1.0, waited / seconds),
            "num_damaged": num_damaged,
            "seconds": time.perf_counter() - self._start,
        }


def _scalars(report: Report) -> dict[str, Tensor]:
    """What it has that is a single number; an absent half stays absent."""
    return {
        name: value
        for name, value in vars(report).items()
        if isinstance(value, Tensor) and value.ndim == 0
    }


def _read(facts: dict[str, Tensor]) -> dict[str, Any]:
    """Numbers and rows of them, averaged over ranks; what is not finite is None, null in JSON."""
    flat = torch.cat([fact.double().flatten() for fact in facts.values()])
    means = (mean if math.isfinite(mean) else None for mean in mean_over_ranks(flat).tolist())
    return {
        name: [next(means) for _ in range(len(fact))] if fact.ndim else next(means)
        for name, fact in facts.items()
    }


def summary(line: dict[str, Any]) -> str:
    """A line of metrics as people read it."""
    parts = [f"student {_shown(line['student_loss'])}"]
    if "mask_loss" in line:
        parts.append(f"mask {_shown(line['mask_loss'])}")
    parts.append("cover " + "/".join(_shown(share, 2) for share in line["mask_coverage"]))
    parts.append(f"{line['images_per_second']:.1f} img/s")
    parts.append(f"wait {line['data_wait_fraction']:.0%}")
    return "  ".join(parts)


def _shown(value: float | None, num_digits: int = 3) -> str:
    return "not finite" if value is None else f"{value:.{num_digits}f}"


def duration(seconds: float) -> str:
    """A time by its two largest units, such as ``3 h 12 min``."""
    rest = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for place, (name, size) in enumerate(units[:-1]):
        if rest >= size:
            smaller_name, smaller = units[place + 1]
            return f"{rest // size} {name} {rest % size // smaller} {smaller_name}"
    return f"{rest} s"
