"""What a launcher and the training processes that it started tell each other, in shared memory."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
from enum import IntEnum
from multiprocessing import get_context
from typing import Any

from adios_tme.errors import AdiosError

_LONGEST_MESSAGE = 1 << 14


_SIGNALS = 1000


class Request(IntEnum):
    """What ranks agree to do after a step; of several the largest wins."""

    CONTINUE = 0
    CHANGE_MEMBERSHIP = 100
    """Save, and let the launcher start more processes."""
    TERMINATE = _SIGNALS + signal.SIGTERM
    INTERRUPT = _SIGNALS + signal.SIGINT
    USER_1 = _SIGNALS + signal.SIGUSR1
    USER_2 = _SIGNALS + signal.SIGUSR2
    GIVE_UP = 2 * _SIGNALS
    """Leave, because this rank cannot do its part."""

    @classmethod
    def of_signal(cls, number: int) -> Request:
        """To save and leave with a signal's exit code.

        Raises:
            ValueError: If no run stops at it.
        """
        return cls(_SIGNALS + number)

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that asked; None where none did."""
        return signal.Signals(self - _SIGNALS) if _SIGNALS < self < Request.GIVE_UP else None


class WorkerChannel:
    """Shared by a launcher and its workers; passed to them when they are started.

    Each number has one writer, so that there are no locks, which a killed worker could hold.

    Args:
        num_workers: Workers of this launcher.
    """

    def __init__(self, num_workers: int) -> None:
        context = get_context("spawn")
        self.launcher = os.getpid()
        self.num_workers = num_workers
        self._request: Any = context.Value(ctypes.c_int, 0, lock=False)
        self._at_once: Any = context.Value(ctypes.c_bool, False, lock=False)
        self._is_ready: Any = context.Array(ctypes.c_bool, num_workers, lock=False)
        self._has_ended: Any = context.Array(ctypes.c_bool, num_workers, lock=False)
        self._lengths: Any = context.Array(ctypes.c_int, num_workers, lock=False)
        size = num_workers * _LONGEST_MESSAGE
        self._errors: Any = context.Array(ctypes.c_char, size, lock=False)

    @property
    def request(self) -> Request:
        """What the launcher asks for."""
        return Request(self._request.value)

    @request.setter
    def request(self, request: Request) -> None:
        self._request.value = request

    @property
    def at_once(self) -> bool:
        """Whether the workers must not finish their step."""
        return bool(self._at_once.value)

    @at_once.setter
    def at_once(self, yes: bool) -> None:
        self._at_once.value = yes

    @property
    def all_ready(self) -> bool:
        """Whether every worker has saved and waits to be started again."""
        return all(self._is_ready)

    @property
    def all_ended(self) -> bool:
        """Whether every worker has come to its end, and saved if a signal asked for it."""
        return all(self._has_ended)

    @property
    def error(self) -> AdiosError | None:
        """An error that a worker met and another start would only meet again."""
        for worker, length in enumerate(self._lengths):
            if length:
                start = worker * _LONGEST_MESSAGE
                error: AdiosError = pickle.loads(self._errors[start : start + length])
                return error
        return None

    def is_ready(self) -> None:
        """Say that this worker has saved and waits to be started again."""
        self._is_ready[_own_number()] = True

    def has_ended(self) -> None:
        """Say that this worker has come to its end."""
        self._has_ended[_own_number()] = True

    def tell(self, error: AdiosError) -> None:
        """Tell the launcher of such an error."""
        content = pickle.dumps(error)
        if len(content) > _LONGEST_MESSAGE:
            content = pickle.dumps(AdiosError(str(error)[: _LONGEST_MESSAGE // 8]))
        start = _own_number() * _LONGEST_MESSAGE
        self._errors[start : start + len(content)] = content
        self._lengths[_own_number()] = len(content)

    def begin_again(self) -> None:
        """Forget a change of membership, before workers are started in it."""
        for worker in range(self.num_workers):
            self._is_ready[worker] = self._has_ended[worker] = False
        if self.request == Request.CHANGE_MEMBERSHIP:
            self.request = Request.CONTINUE


def _own_number() -> int:
    return int(os.environ["LOCAL_RANK"])
