"""What every source of patches gives: its members as columns, and one member by its place."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.errors import DataError

#: Largest file, packed or unpacked, that is taken for a patch.
MAX_MEMBER_BYTES = 256 << 20
#: Largest table of contents that is read into memory.
MAX_DIRECTORY_BYTES = 4 << 30

STORED, DEFLATED = 0, 8
#: Stands for a compression method that does not fit a byte.
OTHER_METHOD = 255
#: In the place of the method: members that were refused when their archive was indexed. They stay
#: in the index, so that reading them says why.
ENCRYPTED, NOT_REGULAR, UNSAFE_NAME, OVERLAPS, OUTSIDE = 249, 250, 251, 252, 253
REFUSALS = {
    ENCRYPTED: "encrypted",
    NOT_REGULAR: "is a link or no regular file",
    UNSAFE_NAME: "its name is not that of a file inside the archive",
    OVERLAPS: "overlaps another member",
    OUTSIDE: "reaches beyond the archive",
}
#: Characters of a name that are shown.
MAX_SHOWN = 200
#: Not to wait for a writer when an archive has become a FIFO.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class Kind(IntEnum):
    """How the members of a source are stored."""

    ZIP = 0
    TAR = 1
    FOLDER = 2
    SLIDE = 3


def kinds_in_words(kinds: Iterable[int]) -> str:
    """How many archives, folders and slides there are, as in "2 archives and 1 folder"."""
    names = {Kind.FOLDER: "folder", Kind.SLIDE: "slide"}
    counts = Counter(names.get(Kind(kind), "archive") for kind in kinds)
    words = [
        f"{counts[name]:,} {name}{'s' * (counts[name] != 1)}"
        for name in ("archive", "folder", "slide")
        if counts[name]
    ]
    return " and ".join(words) or "no archive"


class Member(NamedTuple):
    """Where a member lies in its archive, and what it should be."""

    name: str
    """As UTF-8; other bytes are kept as surrogates (PEP 383)."""
    offset: int
    compressed_size: int
    size: int
    crc32: int
    method: int


@dataclass(frozen=True)
class Directory:
    """Members of an archive, column by column."""

    names: NDArray[np.uint8]
    """All names, one after the other."""
    name_ends: NDArray[np.int64]
    offset: NDArray[np.uint64]
    """Of the local header."""
    compressed_size: NDArray[np.uint64]
    size: NDArray[np.uint64]
    crc32: NDArray[np.uint32]
    """Zero where the source keeps none."""
    method: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def name_lengths(self) -> NDArray[np.int64]:
        """Bytes of each name."""
        return np.diff(self.name_ends, prepend=0)

    def name(self, row: int) -> str:
        """Name of one member."""
        start = self.name_ends[row - 1] if row else 0
        return text(self.names[start : self.name_ends[row]].data)

    def all_names(self) -> list[str]:
        """Names of all members."""
        return [self.name(row) for row in range(len(self))]

    def member(self, row: int) -> Member:
        """Where one member lies."""
        return Member(
            self.name(row),
            int(self.offset[row]),
            int(self.compressed_size[row]),
            int(self.size[row]),
            int(self.crc32[row]),
            int(self.method[row]),
        )

    def contains(self, token: str) -> NDArray[np.bool_]:
        """Whether each name holds a text, found in all names at once."""
        names, letters = self.names, token.encode()
        found = np.zeros(len(self), dtype=bool)
        places = max(0, len(names) - len(letters) + 1)
        hits = names[:places] == letters[0]
        for shift, letter in enumerate(letters[1:], start=1):
            hits &= names[shift : shift + places] == letter
        starts = np.flatnonzero(hits)
        rows = np.searchsorted(self.name_ends, starts, side="right")
        within = starts + len(letters) <= self.name_ends[rows]
        found[rows[within]] = True
        return found

    def select(self, keep: NDArray[np.bool_]) -> Directory:
        """The members where ``keep`` is true."""
        if keep.all():
            return self
        lengths = self.name_lengths
        return Directory(
            self.names[np.repeat(keep, lengths)],
            np.cumsum(lengths[keep]),
            self.offset[keep],
            self.compressed_size[keep],
            self.size[keep],
            self.crc32[keep],
            self.method[keep],
        )

    def refuse(self, rows: NDArray[np.bool_], reason: int) -> Directory:
        """The same members, some of them never to be read; see `REFUSALS`."""
        return replace(self, method=np.where(rows, np.uint8(reason), self.method))


EMPTY = Directory(
    names=np.empty(0, np.uint8),
    name_ends=np.empty(0, np.int64),
    offset=np.empty(0, np.uint64),
    compressed_size=np.empty(0, np.uint64),
    size=np.empty(0, np.uint64),
    crc32=np.empty(0, np.uint32),
    method=np.empty(0, np.uint8),
)


def directory_of(members: list[Member]) -> Directory:
    """Columns of members that were found one by one."""
    if not members:
        return EMPTY
    names = [encoded(member.name) for member in members]
    columns = list(zip(*members, strict=True))
    return Directory(
        names=np.frombuffer(b"".join(names), dtype=np.uint8),
        name_ends=np.cumsum([len(name) for name in names]),
        offset=np.array(columns[1], dtype=np.uint64),
        compressed_size=np.array(columns[2], dtype=np.uint64),
        size=np.array(columns[3], dtype=np.uint64),
        crc32=np.array(columns[4], dtype=np.uint32),
        method=np.array(columns[5], dtype=np.uint8),
    )


def text(name: bytes | memoryview) -> str:
    """A name as a string that gives back the same bytes; see `encoded`."""
    return str(name, "utf-8", "surrogateescape")


def encoded(name: str) -> bytes:
    """The bytes of a name that came from `text`."""
    return name.encode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """A name that is safe and short enough for a terminal or a log."""
    shown = name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}..."
    escaped = shown.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)


def open_archive_file(path: Path) -> int:
    """Open a file that must be a regular one, without waiting for it.

    Raises:
        DataError: If it is a FIFO, a device or a socket.
        OSError: If it cannot be opened.
    """
    handle = os.open(path, OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise damaged_archive(path, "it is no regular file")
    return handle


def check_claims(member: Member) -> None:
    """Whether a member may be read at all, by what is said of it.

    Raises:
        CorruptPatchError: If it was marked as refused, or states to be too large.
    """
    if member.method in REFUSALS:
        raise CorruptPatchError(REFUSALS[member.method])
    if max(member.size, member.compressed_size) > MAX_MEMBER_BYTES:
        raise CorruptPatchError(f"declares {member.size} bytes, more than {MAX_MEMBER_BYTES}")


def damaged_archive(path: Path, reason: str, advice: str = "Write it again") -> DataError:
    """The error of an archive whose members cannot be listed."""
    return DataError(
        f"{printable(path.name)}: {reason}, so the archive cannot be read. "
        f"{advice}, or remove it and run adios-tme index."
    )
