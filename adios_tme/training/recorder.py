"""What a run tells: lines of metrics.jsonl, the progress bar, the log, and pictures of masks."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from adios_tme.distributed.collectives import mean_over_ranks, sum_over_ranks
from adios_tme.models.generator import MaskGenerator
from adios_tme.optim.schedule import Schedule
from adios_tme.run_folder.layout import MASK_PICTURES, METRICS, mask_picture_name
from adios_tme.training.feed import Feed
from adios_tme.training.mask_diagnostics import (
    DiagnosticWarnings,
    MaskDiagnostics,
    measure_diagnostics,
)
from adios_tme.training.state import Run
from adios_tme.training.step import Report
from adios_tme.viz.masks import plot_masks

NUM_EXAMPLES = 6

Evaluate = Callable[[MaskGenerator], dict[str, float]]
"""Scores a mask model on labelled images."""

logger = logging.getLogger(__name__)


class Recorder:
    """Writes what happens; only the first rank has files and a progress bar.

    Args:
        run: The run.
        feed: Where its images come from.
        console: The terminal.
        evaluate: Scores the masks as they stand.
    """

    def __init__(
        self, run: Run, feed: Feed, console: Console, evaluate: Evaluate | None = None
    ) -> None:
        self.run = run
        self.feed = feed
        self.console = console
        self._settings = run.config.run
        self._writes = run.world.is_first
        self._start = self._last_time = time.perf_counter()
        self._last_iteration = run.iteration
        self._mask_scalars: dict[str, Tensor] = {}
        self._watch = DiagnosticWarnings(run.config.optim.warmup_iterations)
        self._evaluate = evaluate if self._writes else None
        self._examples = feed.examples(NUM_EXAMPLES) if self._draws else None
        self._progress = self._progress_bar()
        self._bar = self._progress.add_task(
            "training", total=run.config.optim.total_iterations, completed=run.iteration, shown=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def record(self, report: Report, now: Schedule, images_BCHW: Tensor) -> None:
        """Take note of a finished iteration; now and then write a line or draw a picture."""
        if report.mask_loss is not None:
            self._mask_scalars = _scalars(report)
        self._progress.update(self._bar, completed=self.run.iteration)
        scores = self._scores() if self._eval_is_due() else {}
        if self._is_due(self._settings.log_freq) or self._eval_is_due():
            health = measure_diagnostics(self.run, images_BCHW, report.masks, now.temperature)
            self._write_line(self._measure(report, health, now) | scores)
        if self._draws and self._is_due(self._settings.viz_freq):
            self._draw()

    def _is_due(self, every: int) -> bool:
        return self.run.iteration % every == 0 or self.run.is_finished

    def _eval_is_due(self) -> bool:
        watch = self.run.config.watch
        return watch.eval_labels is not None and self._is_due(watch.eval_freq)

    @property
    def _draws(self) -> bool:
        return self._writes and self._settings.viz_freq > 0

    def _write_line(self, line: dict[str, Any]) -> None:
        if not self._writes:
            return
        with self._disk_may_fail(METRICS) as path, path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._progress.update(self._bar, shown=_summary(line))
        if not self.console.is_terminal:
            total = self.run.config.optim.total_iterations
            logger.info("%d/%d  %s", line["iteration"], total, _summary(line))
        if self.run.config.mask.mask_source == "learned":
            for warning in self._watch.warnings(line):
                logger.warning("%s", warning)

    def _measure(self, report: Report, health: MaskDiagnostics, now: Schedule) -> dict[str, Any]:
        """Read the device and the clock (host sync), and average over ranks."""
        values = _read(_scalars(report) | self._mask_scalars | _scalars(health))
        coverage, spread = mean_over_ranks(
            torch.stack([health.mask_coverage, health.mask_coverage_spread])
        ).tolist()
        (num_damaged,) = sum_over_ranks(self.feed.damage.num_damaged)
        seconds = time.perf_counter() - self._last_time
        num_images = (self.run.iteration - self._last_iteration) * self.run.global_batch_size
        waited, self.feed.wait_seconds = self.feed.wait_seconds, 0.0
        self._last_time += seconds
        self._last_iteration = self.run.iteration
        return {
            "iteration": self.run.iteration,
            "samples_seen": self.run.samples_seen,
            "epoch": self.run.samples_seen / len(self.feed.index),
            **values,
            "temperature": now.temperature,
            "lr": now.lr,
            "mask_lr": now.mask_lr,
            "mask_coverage": coverage,
            "mask_coverage_spread": spread,
            "images_per_second": num_images / seconds,
            "data_wait_fraction": min(1.0, waited / seconds),
            "num_damaged": num_damaged,
            "seconds": time.perf_counter() - self._start,
        }

    def _draw(self) -> None:
        if self._examples is None or not len(self._examples):
            return
        with self._shown() as generator:
            masks = generator(self._examples.to(self.run.world.device)).cpu()
        title = f"Masks after {self.run.iteration} updates"
        with self._disk_may_fail(MASK_PICTURES) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / mask_picture_name(self.run.iteration)
            plot_masks(self._examples, masks, path, title=title)

    @contextmanager
    def _disk_may_fail(self, name: str | Path) -> Iterator[Path]:
        """Lose a line or a picture to a full disk, not the run: that the checkpoints decide."""
        path = self._settings.output_dir / name
        try:
            yield path
        except OSError as error:
            logger.warning("%s: cannot be written (%s); training goes on.", path, error.strerror)

    def _scores(self) -> dict[str, float]:
        if self._evaluate is None:
            return {}
        with self._shown() as generator:
            return self._evaluate(generator)

    @contextmanager
    def _shown(self) -> Iterator[MaskGenerator]:
        """The mask model as it stands, in evaluation; back in training afterwards."""
        data, network = self.run.config.data, self.run.shown_mask_model
        generator = MaskGenerator(network, data.img_size, data.mean, data.std)
        was_training = network.training
        try:
            yield generator.to(self.run.world.device).eval()
        finally:
            network.train(was_training)

    def _progress_bar(self) -> Progress:
        return Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=self.console,
            disable=not (self._writes and self.console.is_terminal),
        )


def _scalars(facts: Report | MaskDiagnostics) -> dict[str, Tensor]:
    """Those of the facts that are single numbers; absent halves stay absent."""
    return {
        name: value
        for name, value in vars(facts).items()
        if isinstance(value, Tensor) and value.ndim == 0
    }


def _read(scalars: dict[str, Tensor]) -> dict[str, float | None]:
    """Scalars averaged over ranks; what is not finite is None, null in JSON."""
    means = mean_over_ranks(torch.stack([value.double() for value in scalars.values()]))
    return {
        name: value if math.isfinite(value) else None
        for name, value in zip(scalars, means.tolist(), strict=True)
    }


def _summary(line: dict[str, Any]) -> str:
    """A line of metrics as people read it."""
    parts = [f"student {_shown(line['student_loss'])}"]
    if "mask_loss" in line:
        parts.append(f"mask {_shown(line['mask_loss'])}")
    parts.append("cover " + "/".join(f"{share:.2f}" for share in line["mask_coverage"]))
    parts.append(f"{line['images_per_second']:.1f} img/s")
    parts.append(f"wait {line['data_wait_fraction']:.0%}")
    return "  ".join(parts)


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"
