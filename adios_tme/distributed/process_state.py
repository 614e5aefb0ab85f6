"""Processes that others wait for: whether they are stopped, and how they ended."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

LOOK_SECONDS = 1.0
#: Looks in a row at which a process was stopped before that is held against it.
STOPPED_LOOKS = 5
STATES = {
    "R": "it computes",
    "S": "it sleeps",
    "D": "it waits for a disk or a network file system",
    "T": "it is stopped",
}


def state(pid: int) -> str:
    """Letter of what a process does, a key of ``STATES`` mostly; empty where nobody tells."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    return content.rpartition(b")")[2].split()[0].decode()


class StoppedWatch:
    """Tells a process that somebody has stopped from one that is slow.

    Looks are counted and not seconds: whoever stops a run as a whole, by job control or as a
    scheduler, stops the watch with it.
    """

    def __init__(self) -> None:
        self._num_looks: Counter[int] = Counter()

    def find(self, pids: Iterable[int]) -> int | None:
        """Look once; one of the processes that was stopped at every look of late."""
        for pid in pids:
            self._num_looks[pid] = self._num_looks[pid] + 1 if state(pid) == "T" else 0
            if self._num_looks[pid] >= STOPPED_LOOKS:
                return pid
        return None


def ending(exit_code: int | None) -> str:
    """How a process ended, in words that follow its name."""
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    number = -exit_code
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL:
        return f"was killed by {name}, most often for want of memory,"
    return f"was ended by {name}"
