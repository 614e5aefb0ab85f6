"""Runs that are started beside a test, watched, and struck."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.factories import command, start_command, start_program
from tests.fork_server import Forked, fork

#: Starting torch in many processes on few cores takes its time.
PATIENCE_SECONDS = 240


class Started:
    """A command that runs beside the test; what it says goes to a file."""

    def __init__(self, process: Forked | subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(self.said()) from error

    def wait_for(self, condition: Callable[[], object], timeout: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Training processes that its elastic agent, ours or torchrun's, has started."""
        of_training = (b"spawn_main", b"adios-tme")
        return [
            pid
            for pid in children_of(self.process.pid)
            if any(word in _words(pid) for word in of_training)
        ]

    def new_workers(self, before: set[int], num_workers: int) -> list[int]:
        """Wait for workers that are none of those before."""
        self.wait_for(lambda: len(set(self.workers()) - before) == num_workers)
        return sorted(set(self.workers()) - before)

    def wait_for_iteration(self, run: Path, iteration: int) -> None:
        """Wait until the sample log tells of an iteration."""
        self.wait_for(lambda: last_iteration(run) >= iteration)

    def wait_for_rendezvous(self, port: int) -> None:
        """Wait until it listens, so that those who come later do not host it."""

        def listens() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        self.wait_for(listens)

    def kill(self) -> None:
        """Kill it and its workers with -9, as when the machine goes."""
        workers = self.workers()
        self.process.kill()
        for pid in workers:
            kill(pid)


@contextmanager
def launched(log: Path, *arguments: str | Path) -> Iterator[Started]:
    """Run the command beside the test, and end it and its workers with the test."""
    with _watched(start_command(*arguments, log=log), log) as started:
        yield started


@contextmanager
def forked(log: Path, function: Callable[..., object], *arguments: Any) -> Iterator[Started]:
    """Call a function of a module beside the test, in a process that ends with the test."""
    process = fork(function, *arguments, environment=os.environ, out=log)
    with _watched(process, log) as started:
        yield started


def installed(log: Path, *arguments: str | Path) -> AbstractContextManager[Started]:
    """The same in a process as users start it."""
    return running(log, *command(*arguments))


@contextmanager
def running(log: Path, *words: str | Path) -> Iterator[Started]:
    """Run a program that launches training, and end it and its workers with the test."""
    with _watched(start_program(*words, log=log), log) as started:
        yield started


@contextmanager
def _watched(process: Forked | subprocess.Popen[bytes], log: Path) -> Iterator[Started]:
    """Look after a process that runs beside the test, and end it and its workers with the test."""
    started = Started(process, log)
    try:
        yield started
    finally:
        started.kill()
        process.wait()


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):  # it was faster
        os.kill(pid, number)


def children_of(pid: int) -> list[int]:
    """Processes that the main thread of one has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return list(map(int, children.read_text().split())) if children.exists() else []


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def last_iteration(run: Path) -> int:
    """The newest iteration in the sample log, whatever rank wrote it."""
    newest = 0
    for path in (run / "samples").glob("rank_*.csv"):
        lines = path.read_text().splitlines()
        numbers = [line.split(",")[0] for line in lines[-2:] if line.count(",") == 3]
        newest = max([newest, *(int(number) for number in numbers if number.isdigit())])
    return newest


def check_every_patch_once(run: Path, num_patches: int, num_samples: int) -> None:
    """The surviving history shows each position and each patch once an epoch, and nothing else."""
    files = sorted((run / "samples").glob("rank_*.csv"))
    texts = [line for file in files for line in file.read_text().splitlines()[1:]]
    lines = np.array([line.split(",") for line in texts], dtype=int)
    assert len(lines) == num_samples
    _, epochs, positions, rows = lines.T
    places = epochs * num_patches + positions
    assert np.array_equal(np.sort(places), np.arange(num_samples))
    whole, rest = divmod(num_samples, num_patches)
    for epoch in range(whole):
        assert np.array_equal(np.sort(rows[epochs == epoch]), np.arange(num_patches))
    assert len(np.unique(rows[epochs == whole])) == rest
