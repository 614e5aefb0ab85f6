"""What a run tells: metrics to the trackers, the progress bar, the log, and pictures of masks."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from adios_tme.optim.schedule import Schedule
from adios_tme.run_folder.health import CollapseWarnings, DiagnosticWarnings, NucleiNotice
from adios_tme.terminal import TrainingBar
from adios_tme.trackers.base import Tracker
from adios_tme.trackers.build import build_trackers
from adios_tme.training.evaluation import Evaluate, draw_masks, evaluate_masks
from adios_tme.training.feed import Feed, Pass
from adios_tme.training.mask_diagnostics import measure_diagnostics
from adios_tme.training.metrics import Metrics, duration, summary
from adios_tme.training.state import Run
from adios_tme.training.step import Report

NUM_EXAMPLES = 6
#: A run that ends later than in a day says so at its start.
LONG_SECONDS = 24 * 60 * 60

logger = logging.getLogger(__name__)


class Recorder:
    """Records finished iterations; only the first rank has trackers, pictures and a progress bar.

    Args:
        run: The run.
        feed: Where its images come from.
        console: The terminal.
        evaluate: Scores the masks as they stand.
    """

    def __init__(
        self, run: Run, feed: Feed, console: Console, evaluate: Evaluate | None = None
    ) -> None:
        self._run = run
        self._feed = feed
        self._console = console
        self._settings = run.config.run
        self._warnings = DiagnosticWarnings(run.config.optim.warmup_iterations)
        self._collapse = CollapseWarnings(run.config.optim.warmup_iterations)
        self._nuclei = NucleiNotice()
        self._knows_length = False
        self._began_at = run.iteration
        writes = run.world.is_first
        self._evaluate = evaluate if writes else None
        self._trackers: list[Tracker] = build_trackers(run.config, run.iteration) if writes else []
        self._metrics = Metrics(run, feed.index.epoch_length)  # its clock starts here
        draws = writes and self._settings.viz_freq > 0
        self._examples = feed.examples(NUM_EXAMPLES) if draws else None
        self._bar = TrainingBar(
            console, run.iteration, run.config.optim.total_iterations, shown=writes
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        for tracker in self._trackers:
            tracker.finish(failed=error is not None)

    def record(self, report: Report, now: Schedule, passes: list[Pass]) -> None:
        """Take note of a finished iteration; now and then write a line or draw a picture."""
        run = self._run
        self._metrics.note(report, sum(each.wait_seconds for each in passes))
        self._bar.update(run.iteration)
        eval_is_due = self._eval_is_due()
        scores = evaluate_masks(run, self._evaluate) if eval_is_due else {}
        if self._is_due(self._settings.log_freq) or eval_is_due or run.iteration == 1:
            images, clean = passes[-1].images, passes[-1].clean
            diagnostics = measure_diagnostics(run, images, report.masks, now, clean)
            line = self._metrics.line(report, diagnostics, now, self._feed.corrupt.num_corrupt)
            self._tell(line | scores, now)
        if self._examples is not None and self._is_due(self._settings.viz_freq):
            picture = draw_masks(run, self._examples)
            pictures = {"masks": picture} if picture else {}
            for tracker in self._trackers:
                tracker.log_images(pictures, run.iteration)

    def _seconds_left(self, line: dict[str, Any]) -> float:
        """Until the end of the run, at the speed since its start."""
        left = self._run.config.optim.total_iterations - self._run.iteration
        return float(left * line["seconds"] / (self._run.iteration - self._began_at))

    def _warn_of_long_runs(self, line: dict[str, Any]) -> None:
        """Say once, when the first iteration, which is slow, is over, that a run takes days."""
        if self._knows_length or line["iteration"] == 1:
            return
        self._knows_length = True
        seconds = self._seconds_left(line)
        if seconds > LONG_SECONDS:
            logger.warning(
                "At this speed the run ends in %s. It may be stopped at any time (Ctrl-C) and goes "
                "on by the same command; --total-iterations, --arch and --img-size shorten it.",
                duration(seconds),
            )

    def _is_due(self, every: int) -> bool:
        return self._run.iteration % every == 0 or self._run.is_finished

    def _eval_is_due(self) -> bool:
        watch = self._run.config.watch
        return watch.eval_labels is not None and self._is_due(watch.eval_freq)

    def _tell(self, line: dict[str, Any], now: Schedule) -> None:
        if not self._run.world.is_first:
            return
        for tracker in self._trackers:
            tracker.log(line, self._run.iteration)
        self._bar.update(self._run.iteration, summary(line))
        if not self._console.is_terminal:
            total = self._run.config.optim.total_iterations
            left = duration(self._seconds_left(line))
            logger.info("%d/%d  %s  %s left", line["iteration"], total, summary(line), left)
        self._warn_of_long_runs(line)
        for warning in self._collapse.warnings(line):
            logger.warning("%s", warning)
        if self._run.config.mask.mask_source == "learned" and not now.mask_is_frozen:
            for warning in self._warnings.warnings(line):
                logger.warning("%s", warning)
            for notice in self._nuclei.notices(line):
                logger.info("%s", notice)
