"""Stopping on request: a signal asks, the loop answers after the step, on every rank alike."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from adios_tme.distributed.collectives import max_over_ranks
from adios_tme.distributed.worker_channel import WorkerChannel
from adios_tme.distributed.world import was_launched

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
#: What ranks may agree on besides the number of a signal; a signal outweighs a change of the world.
GO_ON, CHANGE_WORLD, GIVE_UP = 0, 1, 100
#: A scheduler that signals every process and an agent that passes signals on make two of one.
ECHO_SECONDS = 1.0
LOOK_SECONDS = 0.5

Handler = Callable[[int, FrameType | None], None]


class StopRequest:
    """Remembers the first signal for the end of the step.

    Args:
        link: What the launcher of this process says; None without one.
    """

    def __init__(self, link: WorkerChannel | None = None) -> None:
        self.number = 0
        self.parent = link.launcher if link else os.getppid()
        self.link = link

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.is_orphan:  # else the signal tells of nothing but that
            self.number = self.number or number

    @property
    def is_orphan(self) -> bool:
        """Whether the launcher of this process is gone."""
        return was_launched() and os.getppid() != self.parent

    def agree(self, *, give_up: bool = False) -> int:
        """What every rank does after this step (a collective on the host).

        Args:
            give_up: Whether this rank cannot go on.

        Returns:
            ``GO_ON``, ``CHANGE_WORLD``, ``GIVE_UP``, or the number of the signal to leave with.
        """
        asked = self.number or (self.link.request if self.link else GO_ON)
        verdict = max_over_ranks(GIVE_UP if give_up else asked)
        if verdict not in (GO_ON, CHANGE_WORLD, GIVE_UP):
            self.number = verdict
        return verdict


@contextmanager
def stop_on_signal(link: WorkerChannel | None = None) -> Iterator[StopRequest]:
    """Catch SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 while the block runs; a second leaves at once.

    A launched process also leaves when its launcher is gone.
    """
    stop = StopRequest(link)
    with handling(stop.ask), _Sentinel(stop):
        yield stop


@contextmanager
def handling(handler: Handler, numbers: tuple[signal.Signals, ...] = STOPPING) -> Iterator[None]:
    """Give the stopping signals to a handler, where this thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class _Sentinel:
    """Leaves at once where the loop cannot, as while it waits in a collective for a dead rank.

    Python runs signal handlers between two instructions of the main thread alone; the numbers that
    it writes to a file descriptor reach this thread whatever the main one does.
    """

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sentinel", daemon=True)

    def __enter__(self) -> None:
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        self._hears = threading.current_thread() is threading.main_thread()
        if self._hears:
            self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._hears:
            signal.set_wakeup_fd(self._before)
        self._ended.set()
        os.write(self._writing, b"\0")
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def _watch(self) -> None:
        first_at: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._reading, selectors.EVENT_READ)
            while not self._ended.is_set():
                heard = os.read(self._reading, 64) if selector.select(LOOK_SECONDS) else b""
                if self._stop.is_orphan:
                    _leave(1, "the launcher is gone")
                if self._stop.link and self._stop.link.at_once:
                    _leave(128 + self._stop.link.request, "the launcher was asked twice")
                for number in set(heard) & set(STOPPING):
                    first_at = first_at or time.monotonic()
                    if time.monotonic() - first_at > ECHO_SECONDS:
                        _leave(128 + number, f"a second signal, {signal.Signals(number).name}")


def _leave(code: int, why: str) -> None:
    sys.stderr.write(f"Process {os.getpid()} leaves at once: {why}.\n")
    sys.stderr.flush()
    os._exit(code)
