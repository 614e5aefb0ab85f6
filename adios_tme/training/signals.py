"""Stopping on request: a signal asks, the loop answers at the end of a step, on every rank."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from adios_tme.distributed import max_over_ranks

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Remembers the first signal; the second one acts at once."""

    def __init__(self) -> None:
        self.number = 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.number = number
        for each in STOPPING:
            signal.signal(each, signal.SIG_DFL)

    def on_any_rank(self) -> bool:
        """Whether any rank was asked to stop, and by which signal (a collective on the host)."""
        self.number = max_over_ranks(self.number)
        return bool(self.number)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT and SIGUSR1 while the block runs."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return
    before = {number: signal.signal(number, stop.ask) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
