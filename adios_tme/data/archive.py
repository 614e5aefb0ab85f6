"""Zip archives: the central directory as columns, and one member by a single read.

The layout is PKWARE's APPNOTE 6.3.10. What a file declares is a claim: nothing is read or inflated
beyond the limits here, and every member is checked against its CRC.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.damage import DamagedPatchError
from adios_tme.errors import DataError

#: Largest file, packed or unpacked, that is taken for a patch.
MAX_MEMBER_BYTES = 256 << 20

STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL_BYTES = 46
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_MAX_COMMENT = 1 << 16
_ENCRYPTED = 1
#: Room for the extra field of a local header, so that one read mostly has the whole member.
_EXTRA_SLACK = 64


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
    method: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offset)

    def name(self, row: int) -> str:
        """Name of one member."""
        start = self.name_ends[row - 1] if row else 0
        return self.names[start : self.name_ends[row]].tobytes().decode("utf-8", "replace")

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

    def select(self, keep: NDArray[np.bool_]) -> Directory:
        """The members where ``keep`` is true."""
        lengths = np.diff(self.name_ends, prepend=0)
        return Directory(
            self.names[np.repeat(keep, lengths)],
            np.cumsum(lengths[keep]),
            self.offset[keep],
            self.compressed_size[keep],
            self.size[keep],
            self.crc32[keep],
            self.method[keep],
        )


class Member(NamedTuple):
    """Where a member lies in its archive, and what it should be."""

    name: str
    offset: int
    compressed_size: int
    size: int
    crc32: int
    method: int


def read_directory(path: Path) -> Directory:
    """Read the central directory alone, without touching a member.

    Raises:
        DataError: If the archive is truncated or its directory is damaged.
        OSError: If it cannot be opened.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size - _MAX_COMMENT))
        tail = file.read()
        start, length, count = _locate(file.fileno(), tail, size, path)
        content = os.pread(file.fileno(), length, start)
    if len(content) != length:
        raise _damaged(path, "its directory is cut short")
    return _parse(content, count, path)


def _locate(handle: int, tail: bytes, size: int, path: Path) -> tuple[int, int, int]:
    """Place, length and number of entries of the central directory."""
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged(path, "it has no end-of-directory record")
    *_, count, length, offset, _ = _END.unpack_from(tail, at)
    end = size - len(tail) + at
    locator = at - _END_64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        _, _, place, _ = _END_64_LOCATOR.unpack_from(tail, locator)
        record = os.pread(handle, _END_64.size, place) if place < size else b""
        if len(record) != _END_64.size or not record.startswith(b"PK\6\6"):
            raise _damaged(path, "its ZIP64 record is missing")
        *_, count, length, offset = _END_64.unpack(record)
        end = place
    start = end - length  # also right when something stands before the archive
    if start < 0 or offset > start:
        raise _damaged(path, "its directory lies outside the file")
    if start != offset:
        raise _damaged(path, f"{start - offset} bytes stand before it")
    return start, length, count


def _parse(content: bytes, count: int, path: Path) -> Directory:
    raw = np.frombuffer(content, dtype=np.uint8)
    starts = _entry_starts(content, raw, path)
    if len(starts) != count:
        raise _damaged(path, f"its directory names {count} entries and holds {len(starts)}")
    lengths = _field(raw, starts, 28, 2).astype(np.int64)
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1] if count else 0) - np.repeat(ends - lengths, lengths)
    names = raw[np.repeat(starts + _CENTRAL_BYTES, lengths) + within]
    columns = {
        "compressed_size": _field(raw, starts, 20, 4),
        "size": _field(raw, starts, 24, 4),
        "offset": _field(raw, starts, 42, 4),
    }
    _widen(content, starts, lengths, columns)
    return Directory(
        names=names,
        name_ends=ends,
        offset=columns["offset"],
        compressed_size=columns["compressed_size"],
        size=columns["size"],
        crc32=_field(raw, starts, 16, 4).astype(np.uint32),
        method=np.minimum(_field(raw, starts, 10, 2), 255).astype(np.uint8),
    )


def _entry_starts(content: bytes, raw: NDArray[np.uint8], path: Path) -> NDArray[np.int64]:
    """Where the entries begin: at each signature, unless one stands inside a name."""
    marks = (raw[:-3] == 0x50) & (raw[1:-2] == 0x4B) & (raw[2:-1] == 1) & (raw[3:] == 2)
    starts = np.flatnonzero(marks)
    starts = starts[starts + _CENTRAL_BYTES <= len(raw)]
    following = starts + _CENTRAL_BYTES + sum(_field(raw, starts, at, 2) for at in (28, 30, 32))
    following = following.astype(np.int64)
    if len(starts) and starts[0] == 0 and np.array_equal(following[:-1], starts[1:]):
        end = int(following[-1])
    else:
        chain, end = [], 0
        while content[end : end + 4] == b"PK\1\2" and end + _CENTRAL_BYTES <= len(content):
            chain.append(end)
            end += _CENTRAL_BYTES + sum(struct.unpack_from("<3H", content, end + 28))
        starts = np.array(chain, dtype=np.int64)
    if end > len(raw):
        raise _damaged(path, "its last directory entry is cut short")
    return starts


def _field(
    raw: NDArray[np.uint8], starts: NDArray[np.int64], at: int, width: int
) -> NDArray[np.uint64]:
    """A little-endian number at a fixed place of every entry."""
    value = np.zeros(len(starts), dtype=np.uint64)
    for byte in range(width):
        value |= raw[starts + at + byte].astype(np.uint64) << np.uint64(8 * byte)
    return value


def _widen(
    content: bytes,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    columns: dict[str, NDArray[np.uint64]],
) -> None:
    """Replace 32-bit fields that are all ones by the 64-bit ones of the ZIP64 extra field."""
    full = np.uint64(0xFFFFFFFF)
    wide = np.logical_or.reduce([column == full for column in columns.values()])
    for row in np.flatnonzero(wide):
        start = int(starts[row])
        (extra_length,) = struct.unpack_from("<H", content, start + 30)
        at = start + _CENTRAL_BYTES + int(lengths[row])
        values = _zip64_values(content[at : at + extra_length])
        for name in ("size", "compressed_size", "offset"):  # the order of the standard
            if columns[name][row] == full and values:
                columns[name][row] = values.pop(0)


def _zip64_values(extra: bytes) -> list[int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            body = extra[at + 4 : at + 4 + length]
            return list(struct.unpack_from(f"<{len(body) // 8}Q", body))
        at += 4 + length
    return []


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path.name}: {reason}, so the archive cannot be read. "
        f"Write it again, or remove it and run adios-tme index."
    )


def read_member(handle: int, member: Member) -> bytes:
    """Read, inflate and check one member, mostly with a single ``pread``.

    Args:
        handle: Open file descriptor of the archive.
        member: As the index says.

    Raises:
        DamagedPatchError: If the archive does not hold what the index says.
        OSError: If reading fails.
    """
    if max(member.size, member.compressed_size) > MAX_MEMBER_BYTES:
        raise DamagedPatchError(f"declares {member.size} bytes, more than {MAX_MEMBER_BYTES}")
    name = member.name.encode()
    guess = _LOCAL.size + len(name) + _EXTRA_SLACK + member.compressed_size
    content = os.pread(handle, guess, member.offset)
    if len(content) < _LOCAL.size or not content.startswith(b"PK\3\4"):
        raise DamagedPatchError("no member at its place in the archive")
    _, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack_from(content)
    if flags & _ENCRYPTED:
        raise DamagedPatchError("encrypted")
    if method != member.method or content[_LOCAL.size : _LOCAL.size + name_length] != name:
        raise DamagedPatchError("local header disagrees with the directory")
    start = _LOCAL.size + name_length + extra_length
    packed = content[start : start + member.compressed_size]
    if len(packed) < member.compressed_size:
        packed = os.pread(handle, member.compressed_size, member.offset + start)
    if len(packed) < member.compressed_size:
        raise DamagedPatchError("truncated")
    unpacked = _unpack(packed, member)
    if zlib.crc32(unpacked) != member.crc32:
        raise DamagedPatchError("wrong CRC")
    return unpacked


def _unpack(packed: bytes, member: Member) -> bytes:
    if member.method == STORED:
        unpacked = packed
    elif member.method == DEFLATED:
        try:
            unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
        except zlib.error as error:
            raise DamagedPatchError(f"cannot be inflated ({error})") from error
    else:
        raise DamagedPatchError(f"unknown compression method {member.method}")
    if len(unpacked) != member.size:
        raise DamagedPatchError("not of the declared size")
    return unpacked
