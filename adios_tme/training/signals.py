"""Stopping on request: a signal asks, the loop answers at the end of a step, on every rank."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from adios_tme.distributed import max_over_ranks

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

Handler = Callable[[int, FrameType | None], None]


class SharedNumber(Protocol):
    """A number that several processes see."""

    value: int


class StopRequest:
    """Remembers the first signal; the second one acts at once.

    Args:
        launcher: Number of the signal that the launcher of this process was sent, or 0.
    """

    def __init__(self, launcher: SharedNumber | None = None) -> None:
        self.number = 0
        self._launcher = launcher

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.number = number
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)

    def on_any_rank(self) -> bool:
        """Whether any rank was asked to stop, and by which signal (a collective on the host)."""
        asked = self.number or (self._launcher.value if self._launcher else 0)
        self.number = max_over_ranks(asked)
        return bool(self.number)


@contextmanager
def stop_on_signal(launcher: SharedNumber | None = None) -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT and SIGUSR1 while the block runs."""
    stop = StopRequest(launcher)
    with handling(stop.ask):
        yield stop


@contextmanager
def handling(handler: Handler) -> Iterator[None]:
    """Give the stopping signals to a handler, where this thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
