"""Files that a process keeps open, so that a patch costs no opening of its archive or slide."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Generic, TypeVar

from adios_tme.data.patch import ArchiveEntry

#: Errors of a process that has too many files open.
NO_HANDLES_LEFT = (errno.EMFILE, errno.ENFILE)

Handle = TypeVar("Handle")


class OpenFiles(ABC, Generic[Handle]):
    """Files by their path, least recently used first; not inherited across fork, nor pickled.

    Args:
        max_open: How many.
    """

    def __init__(self, max_open: int) -> None:
        self.max_open = max_open
        self._begin()

    def _begin(self) -> None:
        self._handles: OrderedDict[str, Handle] = OrderedDict()
        self._owner = os.getpid()

    @abstractmethod
    def _open(self, archive: ArchiveEntry) -> Handle:
        """Open one that is not open."""

    @abstractmethod
    def _close(self, handle: Handle) -> None:
        """Close one."""

    def handle(self, archive: ArchiveEntry) -> Handle:
        """One that is open, opened if need be; raises what opening it raises."""
        if self._owner != os.getpid():
            self.close()  # a forked child closes its copies and opens its own
            self._owner = os.getpid()
        key = archive.full_path
        if key in self._handles:
            self._handles.move_to_end(key)
            return self._handles[key]
        while len(self._handles) >= self.max_open:
            self._close(self._handles.popitem(last=False)[1])
        self._handles[key] = self._open(archive)
        return self._handles[key]

    def forget(self, archive: ArchiveEntry) -> None:
        """Close one, if it is open."""
        if archive.full_path in self._handles:
            self._close(self._handles.pop(archive.full_path))

    def close(self) -> None:
        """Close all of them."""
        while self._handles:
            self._close(self._handles.popitem()[1])

    def __getstate__(self) -> dict[str, int]:
        return {"max_open": self.max_open}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.max_open = state["max_open"]
        self._begin()
