"""A tracker on a thread of its own, so that nothing it does stops or slows training."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from adios_tme.trackers.base import RunToTrack, ServiceTracker, scalars
from adios_tme.trackers.run_ids import RunIds

#: Failures in a row after which a tracker is switched off.
MAX_FAILURES = 3
#: Lines and pictures that wait for a tracker before it counts as hanging.
MAX_WAITING = 1000
#: Whatever a package of others raises; some leave the process where they cannot start.
FAILURES = (Exception, SystemExit)

logger = logging.getLogger(__name__)


class _Job(NamedTuple):
    what: str
    do: Callable[[ServiceTracker], None]


class BackgroundTracker:
    """Opens a tracker at once and tells it everything in order, while training goes on.

    It is switched off, with a warning that says why, where it does not start in time, fails
    `MAX_FAILURES` times in a row, or falls far behind. A step that it was told before the run
    resumed from an older checkpoint is not told again, unless the tracker says that it lacks it.

    Args:
        name: As users call it.
        start: Opens it; called on the thread, which is where its package is imported.
        run: What it is told at its start.
        ids: Runs of the trackers of this output folder.
    """

    def __init__(
        self, name: str, start: Callable[[RunToTrack], ServiceTracker], run: RunToTrack, ids: RunIds
    ) -> None:
        self.name = name
        self._start = start
        self._run = run
        self._ids = ids
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._is_off = False
        self._failed = False
        self._told_before = 0
        self._has_begun = threading.Event()
        self._deadline = time.monotonic() + run.limit_seconds
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Wait for the start, as long as it may take, and pass the settings on."""
        if not self._has_begun.wait(max(0.0, self._deadline - time.monotonic())):
            self._switch_off(f"it did not start within {self._run.limit_seconds:.0f} s")
        self._tell("the settings", lambda tracker: tracker.store_init_configuration(values))

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Pass on the numbers of a line."""
        numbers = scalars(values)
        self._tell_step(step, "the line", lambda tracker: tracker.log(numbers, step))

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Pass pictures on."""
        if values:
            self._tell_step(step, "pictures", lambda tracker: tracker.log_images(values, step))

    def finish(self, *, failed: bool = False) -> None:
        """Wait until it has taken everything and is closed, as long as that may take."""
        if self._is_off:
            return
        self._failed = failed
        limit = self._run.limit_seconds
        try:
            self._jobs.put(None, timeout=limit)
        except queue.Full:
            pass  # the thread hangs, which is told below
        else:
            self._thread.join(limit)
        if self._thread.is_alive():
            logger.warning(
                "%s: did not finish within %.0f s, so that its last lines may be missing there. "
                "metrics.jsonl has all of them.",
                self.name,
                limit,
            )

    def _tell_step(self, step: int, what: str, do: Callable[[ServiceTracker], None]) -> None:
        def do_once(tracker: ServiceTracker) -> None:
            if step > self._told_before:
                self._ids.note(self.name, step)
                do(tracker)

        self._tell(f"{what} of iteration {step}", do_once)

    def _tell(self, what: str, do: Callable[[ServiceTracker], None]) -> None:
        if self._is_off:
            return
        try:
            self._jobs.put_nowait(_Job(what, do))
        except queue.Full:
            self._switch_off(f"it hangs: {MAX_WAITING} lines wait for it")

    def _switch_off(self, reason: str) -> None:
        if not self._is_off:
            self._is_off = True
            logger.warning(
                "%s: switched off, because %s. Training goes on, metrics.jsonl has every line, and "
                "the tracker is tried again when the run resumes.",
                self.name,
                reason,
            )

    def _work(self) -> None:
        """All of the tracker's life, on its thread."""
        try:
            tracker = self._begin()
        except FAILURES as error:
            self._switch_off(f"it did not start ({_words(error)})")
            return
        finally:
            self._has_begun.set()
        num_failures = 0
        while not self._is_off and (job := self._jobs.get()) is not None:
            try:
                job.do(tracker)
                num_failures = 0
            except FAILURES as error:
                num_failures += 1
                self._tell_failure(num_failures, job.what, error)
        try:
            tracker.finish(failed=self._failed)
        except FAILURES as error:
            logger.warning("%s: did not finish properly (%s).", self.name, _words(error))

    def _begin(self) -> ServiceTracker:
        known = self._ids.run_id(self.name)
        tracker = self._start(replace(self._run, run_id=known))
        if not self._is_off:
            told_before = self._ids.open(self.name, tracker.run_id)
            self._told_before = told_before if tracker.last_step is None else tracker.last_step
            verb = "goes on in" if known == tracker.run_id else "began"
            logger.info("%s %s run %s: %s", self.name, verb, tracker.run_id, tracker.where)
        return tracker

    def _tell_failure(self, num_failures: int, what: str, error: BaseException) -> None:
        if num_failures >= MAX_FAILURES:
            self._switch_off(f"it failed {num_failures} times in a row ({_words(error)})")
        else:
            logger.warning("%s: did not take %s (%s).", self.name, what, _words(error))


def _words(error: BaseException) -> str:
    """An error in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
