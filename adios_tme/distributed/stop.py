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
from adios_tme.distributed.worker_channel import Request, WorkerChannel
from adios_tme.distributed.world import was_launched

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
#: A scheduler that signals every process and an agent that passes signals on make two of one.
ECHO_SECONDS = 1.0
LOOK_SECONDS = 0.5

Handler = Callable[[int, FrameType | None], None]


class StopListener:
    """Remembers the first signal for the end of the step.

    Args:
        channel: What the launcher of this process says; None without one.
    """

    def __init__(self, channel: WorkerChannel | None = None) -> None:
        self.request = Request.CONTINUE
        self.parent = channel.launcher if channel else os.getppid()
        self.channel = channel

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.is_orphan:  # else the signal tells of nothing but that
            self.request = self.request or Request.of_signal(number)

    @property
    def is_orphan(self) -> bool:
        """Whether the launcher of this process is gone."""
        return was_launched() and os.getppid() != self.parent

    def agree(self, *, give_up: bool = False) -> Request:
        """What every rank does after this step (a collective on the host).

        Args:
            give_up: Whether this rank cannot go on.
        """
        asked = self.request or (self.channel.request if self.channel else Request.CONTINUE)
        return Request(max_over_ranks(Request.GIVE_UP if give_up else asked))


@contextmanager
def stop_on_signal(channel: WorkerChannel | None = None) -> Iterator[StopListener]:
    """Catch SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 while the block runs; a second leaves at once.

    A launched process also leaves when its launcher is gone.
    """
    listener = StopListener(channel)
    with handling(listener.ask), _Sentinel(listener):
        yield listener


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


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Keep the stopping signals from what the block starts, which inherits that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Sentinel:
    """Leaves at once where the loop cannot, as while it waits in a collective for a dead rank.

    Python runs signal handlers between two instructions of the main thread alone; the numbers that
    it writes to a file descriptor reach this thread whatever the main one does.
    """

    def __init__(self, listener: StopListener) -> None:
        self._listener = listener
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
                if self._listener.is_orphan:
                    _leave(1, "the launcher is gone")
                channel = self._listener.channel
                if channel and channel.at_once:
                    _leave(128 + (channel.request.signal or 0), "the launcher was asked twice")
                for number in set(heard) & set(STOPPING):
                    first_at = first_at or time.monotonic()
                    if time.monotonic() - first_at > ECHO_SECONDS:
                        _leave(128 + number, f"a second signal, {signal.Signals(number).name}")


def _leave(code: int, why: str) -> None:
    sys.stderr.write(f"Process {os.getpid()} leaves at once: {why}.\n")
    sys.stderr.flush()
    os._exit(code)
