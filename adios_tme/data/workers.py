"""Processes that read batches, and are watched: what happens to one of them becomes one message.

They and the training process share memory and exchange small words through pipes, so that nothing
is written to /dev/shm and nobody waits for a lock that a killed process holds.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import mmap
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context, process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from adios_tme.data.corrupt import unforeseen
from adios_tme.distributed.process_state import (
    LOOK_SECONDS,
    STATES,
    StoppedWatch,
    ending,
    state,
)
from adios_tme.distributed.stop import signals_blocked
from adios_tme.errors import AdiosError, DataError, LaunchError

BATCHES_AHEAD = 2
#: A patch that takes longer is worth a warning.
SLOW_SECONDS = 10
#: How long a killed worker is waited for; one that hangs in the system's own code does not end.
END_SECONDS = 2.0
#: How often a worker looks whether the training process is still there.
PARENT_SECONDS = 5.0
#: Largest piece of memory that workers keep for the next image, and half of what they keep; glibc
#: allows no more.
LARGEST_REUSED = 1 << 25

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Read = Callable[[Question, Tensor], Answer]
"""Answers a question; keeps the tensor, int64 (2,), at the patches begun so far and the row."""

logger = logging.getLogger(__name__)


def shared_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeroed memory that forked workers share, whatever the size of /dev/shm.

    Raises:
        LaunchError: If there is not as much.
    """
    if sys.platform != "linux":
        return torch.zeros(shape, dtype=dtype).share_memory_()
    size = int(np.prod(shape)) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, size)
    except OSError as error:
        raise LaunchError(
            f"data: no memory for batches of {size / 2**30:.1f} GiB in all ({error.strerror}). "
            f"Lower --num-workers or --batch-size-per-gpu."
        ) from error
    return torch.frombuffer(memory, dtype=dtype).view(shape)


class Workers(Generic[Question, Answer]):
    """Processes that answer questions, each in its turn, ahead of when they are needed.

    Args:
        read: Runs in the workers.
        name_of: How a message calls a row.
        num_workers: Processes.
        read_timeout_seconds: How long one patch may take.
    """

    def __init__(
        self,
        read: Read[Question, Answer],
        name_of: Callable[[int], str],
        num_workers: int,
        read_timeout_seconds: float,
    ) -> None:
        self._read = read
        self._name_of = name_of
        self._timeout = read_timeout_seconds
        self._notes = shared_memory((num_workers, 2), torch.int64)
        self._running: list[_Worker] = []
        # Before multiprocessing sends SIGTERM to what is left and waits for it: workers ignore it.
        Finalize(self, _end, (self._running,), exitpriority=0)

    def start(self) -> None:
        """Start them; best before any other thread runs.

        Raises:
            LaunchError: If the system does not allow as many.
        """
        # Workers read files and decode; forking them starts at once and shares the index.
        context: Any = get_context("fork" if sys.platform == "linux" else None)
        try:
            for note in self._notes:
                ours, theirs = context.Pipe()
                ends = [worker.connection for worker in self._running] + [ours]
                arguments = (theirs, ends, os.getpid(), self._read, note)
                started = context.Process(target=_serve, args=arguments, daemon=True)
                with signals_blocked():  # what follows from them, the training process decides
                    started.start()
                theirs.close()  # so that the end of the worker is the end of the pipe
                self._running.append(_Worker(started, ours, note))
        except OSError as error:
            self.close()
            raise LaunchError(
                f"data: {len(self._notes)} loader workers cannot be started ({error.strerror}). "
                f"Lower --num-workers."
            ) from error

    def answers(self, questions: Iterator[Question]) -> Iterator[Answer]:
        """Answers in the order of the questions, which are asked before they are needed."""
        for worker in self._running * BATCHES_AHEAD:
            self._ask(worker, next(questions))
        for turn in count():
            if not self._running:
                return
            worker = self._running[turn % len(self._running)]
            answer = self._answer(worker)
            self._ask(worker, next(questions))
            yield answer

    def close(self) -> None:
        """End them."""
        _end(self._running)

    def _ask(self, worker: _Worker, question: Question) -> None:
        try:
            worker.connection.send(question)  # small beside what a pipe holds, so never waits
        except OSError as error:
            raise self._death(worker) from error

    def _answer(self, worker: _Worker) -> Answer:
        patience = _Patience(worker)
        ends = {each.process.sentinel: each for each in self._running}
        while not worker.connection.poll():
            ready = wait([worker.connection, *ends], LOOK_SECONDS)
            for sentinel in ready:
                if isinstance(sentinel, int):
                    raise self._death(ends[sentinel])
            if not ready:
                self._look(patience)
        try:
            answer = pickle.loads(worker.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death(worker) from error
        if isinstance(answer, _Failure):
            raise answer.as_error()
        received: Answer = answer
        return received

    def _look(self, patience: _Patience) -> None:
        """Tell a worker that is slow from one that will not answer."""
        worker = patience.worker
        if patience.stopped.find([worker.pid]):
            raise LaunchError(
                f"Loader worker {worker.pid} was stopped (SIGSTOP) while it read "
                f"{self._place(worker)}, and did not go on. Find out who stops processes here, "
                f"{_GO_ON}"
            )
        seconds = patience.seconds()
        doing = STATES.get(state(worker.pid), "what it does is not known")
        if seconds >= self._timeout:
            raise LaunchError(
                f"Loader worker {worker.pid} has not read {self._place(worker)} in {seconds:.0f} s "
                f"({doing}). Look whether its file system answers, or raise "
                f"--read-timeout-seconds, {_GO_ON}"
            )
        if seconds >= SLOW_SECONDS and not patience.is_told:
            patience.is_told = True
            logger.warning(
                "Waiting for loader worker %d, which has been reading %s for %d s (%s).",
                *(worker.pid, self._place(worker), seconds, doing),
            )

    def _death(self, worker: _Worker) -> LaunchError:
        worker.process.join(END_SECONDS)
        code = worker.process.exitcode
        # An index that is cut short under its memory map would end this process, too.
        named = code != -signal.SIGBUS
        place = self._place(worker) if named else f"patch number {int(worker.note[1])}"
        advice = (
            "Free memory, or lower --num-workers,"
            if code == -signal.SIGKILL
            else "Leave that patch out with --pattern if this happens again,"
        )
        return LaunchError(
            f"Loader worker {worker.pid} {ending(code)} while it read {place}. {advice} {_GO_ON}"
        )

    def _place(self, worker: _Worker) -> str:
        """What a worker reads, or has read last."""
        num_begun, row = worker.note.tolist()
        return self._name_of(row) if num_begun else "nothing yet"


_GO_ON = "then run the same command again to go on from what is saved."


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    note: Tensor

    @property
    def pid(self) -> int:
        return self.process.pid or 0


class _Patience:
    """How long a worker has been at one patch, while this process waits for it."""

    def __init__(self, worker: _Worker) -> None:
        self.worker = worker
        self.stopped = StoppedWatch()
        self.is_told = False
        self._num_begun = -1
        self._num_looks = 0

    def seconds(self) -> float:
        """Look once; counted in looks, so that nothing counts while this process is stopped."""
        num_begun = int(self.worker.note[0])
        if num_begun != self._num_begun:
            self._num_begun, self._num_looks, self.is_told = num_begun, 0, False
        self._num_looks += 1
        return self._num_looks * LOOK_SECONDS


@dataclass(frozen=True)
class _Failure:
    """An exception of a worker as plain words, which always can be sent."""

    message: str
    trace: str

    def as_error(self) -> DataError:
        error = DataError(self.message)
        error.add_note(self.trace)  # shown where nobody catches it; the command prints the message
        return error


def _serve(
    connection: Connection,
    ends_of_parent: list[Connection],
    parent: int,
    read: Read[Question, Answer],
    note: Tensor,
) -> None:
    """Answer questions until the training process is gone; runs in a worker."""
    torch.set_num_threads(1)
    if not os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.disable()  # torch's launcher turns it on; the training process tells the end
    _reuse_freed_memory()
    for end in ends_of_parent:
        end.close()  # else this worker would keep the pipes of others open
    try:
        while _is_asked(connection, parent):
            connection.send_bytes(_answer(read, connection.recv(), note))
    except (EOFError, OSError):
        return  # the training process is gone


def _is_asked(connection: Connection, parent: int) -> bool:
    while not connection.poll(PARENT_SECONDS):
        if os.getppid() != parent:
            return False
    return True


def _answer(read: Read[Question, Answer], question: Question, note: Tensor) -> bytes:
    try:
        return pickle.dumps(read(question, note))
    except BaseException as error:  # whatever it is, the training process tells it
        known = error if isinstance(error, AdiosError) else unforeseen(error, "data")
        return pickle.dumps(_Failure(str(known), traceback.format_exc()))


def _end(workers: list[_Worker]) -> None:
    """Kill workers, who only read, and wait a little for their end."""
    for worker in workers:
        worker.process.kill()
    deadline = time.monotonic() + END_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.connection.close()
        # multiprocessing waits for all children at exit, which may be for ever.
        process._children.discard(worker.process)  # type: ignore[attr-defined]
    workers.clear()


def _reuse_freed_memory() -> None:
    """Have glibc keep the memory of one image for the next.

    Otherwise pages of a file and its pixels go back to the system and come again one by one, with
    every patch.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has no such setting
        libc.mallopt(_M_MMAP_THRESHOLD, LARGEST_REUSED)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * LARGEST_REUSED)
