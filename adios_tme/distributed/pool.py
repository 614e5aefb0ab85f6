"""Processes that share the work on a CPU."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from adios_tme.distributed.process_state import LOOK_SECONDS, StoppedWatch
from adios_tme.errors import LaunchError

T = TypeVar("T")

#: Calls for each process that run, wait, or have a result that is not taken yet.
CALLS_AHEAD = 4


@contextmanager
def process_pool(num_workers: int, what: str) -> Iterator[ProcessPoolExecutor]:
    """A pool that starts at once; what it runs must leave torch's threads alone.

    Args:
        num_workers: Processes.
        what: What they do, for the message.

    Raises:
        LaunchError: If they cannot be started, or one of them was killed or stopped before its work
            was done.
    """
    try:
        watched = _WatchedPool(num_workers)
    except OSError as error:  # as when its locks find no room
        raise LaunchError(
            f"{what}: {num_workers} processes cannot be started ({error.strerror}). "
            f"Make room in /dev/shm, or use --num-workers 1."
        ) from error
    try:
        with watched as pool:
            yield pool
    except BrokenProcessPool as error:
        if watched.stopped is not None:
            raise LaunchError(
                f"{what}: process {watched.stopped} of {num_workers} was stopped (SIGSTOP), and "
                f"did not go on. Find out who stops processes here, and start again."
            ) from error
        raise LaunchError(
            f"{what}: one of {num_workers} processes was killed, most often for want of memory. "
            f"Free memory, or lower --num-workers, and start again."
        ) from error
    finally:
        watched.ended.set()


def in_order(
    pool: Executor,
    function: Callable[..., T],
    arguments: Iterable[tuple[Any, ...]],
    num_workers: int,
) -> Iterator[T]:
    """Results of many calls in their order, with few of them under way or waiting to be taken.

    Unlike ``Executor.map``, which submits all calls at once: of a billion patches that takes
    gigabytes before the first result.

    Args:
        pool: Where they run.
        function: Called with each of the arguments.
        arguments: Taken one by one.
        num_workers: Processes of the pool; each has a few calls ahead of it.
    """
    waiting: deque[Future[T]] = deque()
    for each in arguments:
        if len(waiting) == CALLS_AHEAD * num_workers:
            yield waiting.popleft().result()
        waiting.append(pool.submit(function, *each))
    while waiting:
        yield waiting.popleft().result()


class _WatchedPool(ProcessPoolExecutor):
    """A pool that breaks when one of its processes is stopped; it would wait for it for ever."""

    def __init__(self, num_workers: int) -> None:
        # Forked processes start at once, and would find torch's threads gone.
        super().__init__(num_workers, get_context("fork" if sys.platform == "linux" else None))
        self.stopped: int | None = None
        self.ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name="pool", daemon=True)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        if self._watch.ident is None:  # begins when the processes have been forked
            self._watch.start()
        return future

    def _look(self) -> None:
        watch = StoppedWatch()
        while not self.ended.wait(LOOK_SECONDS):
            processes = dict(self._processes or {})
            self.stopped = watch.find(processes)
            if self.stopped is not None:
                for process in processes.values():
                    process.kill()
                return
