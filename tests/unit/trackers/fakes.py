"""A tracker that does as it is told, without a package."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adios_tme.trackers.base import RunToTrack

#: For what should take no time, on a machine that is busy.
PATIENCE_SECONDS = 30.0


class FakeTracker:
    """Notes what it is told; ``before`` may raise or wait instead, by what is about to be done."""

    where = "nowhere"

    def __init__(
        self,
        run: RunToTrack,
        before: Callable[[str], None] = lambda what: None,
        *,
        last_step: int | None = None,
    ) -> None:
        self.told: list[Any] = []
        self.run_id = run.run_id or "new"
        self.last_step = last_step
        self._before = before
        before("start")

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self._before("settings")
        self.told.append(dict(values))

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self._before(f"line {step}")
        self.told.append((step, dict(values)))

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        self._before(f"pictures {step}")
        self.told.append((step, dict(values)))

    def finish(self, *, failed: bool = False) -> None:
        self._before("finish")
        self.told.append("failed" if failed else "finished")


def run_to_track(output_dir: Path, iteration: int = 0, **facts: Any) -> RunToTrack:
    return RunToTrack(
        output_dir,
        facts.pop("project", "tissue"),
        facts.pop("name", "first try"),
        iteration,
        facts.pop("limit_seconds", PATIENCE_SECONDS),
        **facts,
    )


def waiting_for(
    event: threading.Event, what: str, has_come: threading.Event | None = None
) -> Callable[[str], None]:
    """Waits for an event where that is about to be done, and says so by another one."""

    def before(doing: str) -> None:
        if doing == what:
            if has_come:
                has_come.set()
            event.wait(PATIENCE_SECONDS)

    return before


def failing_at(*what: str) -> Callable[[str], None]:
    """Raises where one of these is about to be done."""

    def before(doing: str) -> None:
        if doing in what:
            raise ConnectionError(f"no network for {doing}")

    return before
