"""Zip archives: the central directory as columns, and one member by a single read.

The layout is PKWARE's APPNOTE 6.3.10. What a file declares is not trusted: nothing is read or
inflated beyond the limits here, and every member is checked against its CRC.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.members import (
    DEFLATED,
    ENCRYPTED,
    MAX_DIRECTORY_BYTES,
    OTHER_METHOD,
    OUTSIDE,
    OVERLAPS,
    REFUSALS,
    STORED,
    Directory,
    Member,
    check_claims,
    damaged_archive,
    encoded,
    open_archive_file,
)

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL_SIGNATURE = b"PK\1\2"
_CENTRAL = np.dtype(
    [
        ("signature", "S4"),
        ("versions_and_flags", "<u2", 3),
        ("method", "<u2"),
        ("time", "<u4"),
        ("crc32", "<u4"),
        ("compressed_size", "<u4"),
        ("size", "<u4"),
        ("name_length", "<u2"),
        ("extra_length", "<u2"),
        ("comment_length", "<u2"),
        ("attributes", "<u2", 4),
        ("offset", "<u4"),
    ]
)
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_MAX_COMMENT = 1 << 16
_IS_ENCRYPTED = 1
#: Where counts and offsets begin again in archives that should be ZIP64 and are not, as macOS and
#: old tools write them.
_COUNT_WRAPS, _OFFSET_WRAPS = 1 << 16, 1 << 32


def read_directory(path: Path) -> Directory:
    """Read the central directory alone, without touching a member.

    Members that overlap or reach beyond the archive are marked as refused.

    Raises:
        DataError: If the archive is truncated, is no regular file, or its directory is damaged.
        OSError: If it cannot be opened.
    """
    with os.fdopen(open_archive_file(path), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size - _MAX_COMMENT))
        tail = file.read()
        place = _locate(file.fileno(), tail, size, path)
        content = os.pread(file.fileno(), place.length, place.start)
    if len(content) != place.length:
        raise damaged_archive(path, "its directory is cut short")
    return _refuse_impossible(_parse(content, place, path), place.start)


class _Place(NamedTuple):
    """Where the central directory is, and what is said of it."""

    start: int
    length: int
    num_entries: int
    is_wide: bool
    """Whether it is ZIP64; else what is counted may have wrapped round."""


def _locate(handle: int, tail: bytes, size: int, path: Path) -> _Place:
    at = _end_record(tail)
    if at < 0:
        raise damaged_archive(path, "it has no end-of-directory record")
    _, *disks, _, count, length, offset, _ = _END.unpack_from(tail, at)
    end = size - len(tail) + at
    is_wide = False
    locator = at - _END_64_LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        _, _, place, _ = _END_64_LOCATOR.unpack_from(tail, locator)
        record = os.pread(handle, _END_64.size, place) if place < size else b""
        if len(record) != _END_64.size or not record.startswith(b"PK\6\6"):
            raise damaged_archive(path, "its ZIP64 record is missing")
        *_, disk, directory_disk, _, count, length, offset = _END_64.unpack(record)
        disks = [disk, directory_disk]
        end, is_wide = place, True
    if any(disks):
        raise damaged_archive(
            path, "it is one part of a split archive", "Join the parts (zip -s 0 PART --out WHOLE)"
        )
    start = end - length  # also right when something stands before the archive
    if start < 0 or offset > start:
        raise damaged_archive(path, "its directory lies outside the file")
    if start != offset and (is_wide or (start - offset) % _OFFSET_WRAPS):
        raise damaged_archive(path, f"{start - offset} bytes stand before it")
    if length > MAX_DIRECTORY_BYTES:
        raise damaged_archive(path, f"its directory states {length} bytes")
    return _Place(start, length, count, is_wide)


def _end_record(tail: bytes) -> int:
    """Where the end record begins: the last one whose comment ends with the file, else the last."""
    # A file shorter than the record holds none; a negative end would count from the back.
    last = at = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    while at >= 0:
        (comment_length,) = struct.unpack_from("<H", tail, at + _END.size - 2)
        if at + _END.size + comment_length == len(tail):
            return at
        at = tail.rfind(b"PK\5\6", 0, at)
    return last


def _refuse_impossible(directory: Directory, end: int) -> Directory:
    """Mark members that reach into the directory, or into the member that follows them."""
    if not len(directory):
        return directory
    limit = np.uint64(1 << 62)  # far beyond any file, and sums still fit
    offset = np.minimum(directory.offset, limit)
    reach = offset + np.minimum(directory.compressed_size, limit)
    reach += np.uint64(_LOCAL.size) + directory.name_lengths.astype(np.uint64)
    outside = reach > np.uint64(end)
    order = np.argsort(offset, kind="stable")
    overlaps = np.zeros(len(directory), dtype=bool)
    overlaps[order[:-1]] = reach[order[:-1]] > offset[order[1:]]
    if not (outside.any() or overlaps.any()):
        return directory
    return directory.refuse(overlaps, OVERLAPS).refuse(outside, OUTSIDE)


def _parse(content: bytes, place: _Place, path: Path) -> Directory:
    raw = np.frombuffer(content, dtype=np.uint8)
    starts, entries = _entries(content, raw, path)
    surplus = len(starts) - place.num_entries
    if surplus and (place.is_wide or surplus % _COUNT_WRAPS):
        raise damaged_archive(
            path, f"its directory names {place.num_entries} entries and holds {len(starts)}"
        )
    lengths = entries["name_length"].astype(np.int64)
    columns = {
        name: entries[name].astype(np.uint64) for name in ("compressed_size", "size", "offset")
    }
    _widen(content, starts, lengths, columns)
    if not place.is_wide and place.start >= _OFFSET_WRAPS:
        columns["offset"] = _unwrapped(columns["offset"])
    method = np.minimum(entries["method"], OTHER_METHOD)
    method[method >= min(REFUSALS)] = OTHER_METHOD
    method[entries["versions_and_flags"][:, 2] & _IS_ENCRYPTED > 0] = ENCRYPTED
    return Directory(
        names=raw[_within(starts + _CENTRAL.itemsize, lengths, len(raw))],
        name_ends=np.cumsum(lengths),
        offset=columns["offset"],
        compressed_size=columns["compressed_size"],
        size=columns["size"],
        crc32=entries["crc32"].astype(np.uint32),
        method=method.astype(np.uint8),
    )


def _entries(
    content: bytes, raw: NDArray[np.uint8], path: Path
) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Where the entries begin, and their fixed fields.

    An entry begins at each signature, unless one stands inside a name or a comment.
    """
    starts = _signatures(raw)
    # Every place of the directory seen as the begin of an entry, without a copy; as plain bytes,
    # which numpy gathers ten times as fast as fields.
    num_places = max(0, len(raw) - _CENTRAL.itemsize + 1)
    places = np.ndarray(num_places, dtype=f"V{_CENTRAL.itemsize}", buffer=raw, strides=(1,))
    entries = places[starts].view(_CENTRAL)
    following = starts + _lengths(entries)
    if len(starts) and starts[0] == 0 and np.array_equal(following[:-1], starts[1:]):
        end = int(following[-1])
    else:
        chain, end = [], 0
        while content.startswith(_CENTRAL_SIGNATURE, end) and end < len(places):
            chain.append(end)
            end += _CENTRAL.itemsize + sum(struct.unpack_from("<3H", content, end + 28))
        starts = np.array(chain, dtype=np.int64)
        entries = places[starts].view(_CENTRAL)
    if end > len(raw):
        raise damaged_archive(path, "its last directory entry is cut short")
    return starts, entries


def _signatures(raw: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Places of the signature of an entry, with room for the entry behind them."""
    last = max(0, len(raw) - _CENTRAL.itemsize + 1)
    starts = np.flatnonzero(raw[:last] == _CENTRAL_SIGNATURE[0])
    for shift, byte in enumerate(_CENTRAL_SIGNATURE[1:], start=1):
        starts = starts[raw[starts + shift] == byte]
    return starts


def _lengths(entries: NDArray[np.void]) -> NDArray[np.int64]:
    """Bytes of whole entries."""
    lengths = np.full(len(entries), _CENTRAL.itemsize, dtype=np.int64)
    for name in ("name_length", "extra_length", "comment_length"):
        lengths += entries[name]
    return lengths


def _within(starts: NDArray[np.int64], lengths: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Whether each of ``size`` places lies in one of the stretches, which come in order."""
    ends = starts + lengths
    runs = np.empty(2 * len(starts) + 1, dtype=np.int64)  # gap, stretch, gap, stretch ... gap
    runs[1::2] = lengths
    runs[0::2] = np.append(starts, size) - np.insert(ends, 0, 0)
    inside = np.zeros(len(runs), dtype=bool)
    inside[1::2] = True
    return np.repeat(inside, runs)


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
        at = start + _CENTRAL.itemsize + int(lengths[row])
        values = _zip64_values(content[at : at + extra_length])
        for name in ("size", "compressed_size", "offset"):  # the order of the standard
            if columns[name][row] == full and values:
                columns[name][row] = values.pop(0)


def _unwrapped(offsets: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Offsets that began again at each 4 GiB, for members in the order in which they lie.

    Where they do not, reading finds no member at its place.
    """
    begins_again = np.append(False, offsets[1:] < offsets[:-1])
    return offsets + np.cumsum(begins_again, dtype=np.uint64) * np.uint64(_OFFSET_WRAPS)


def _zip64_values(extra: bytes) -> list[int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            body = extra[at + 4 : at + 4 + length]
            return list(struct.unpack_from(f"<{len(body) // 8}Q", body))
        at += 4 + length
    return []


def read_member(handle: int, member: Member) -> bytes:
    """Read, inflate and check one member.

    Its header and its content are read one after the other: a second call costs less than a copy of
    the content out of what one call brings.

    Args:
        handle: Open file descriptor of the archive.
        member: As the index says.

    Raises:
        CorruptPatchError: If the archive does not hold what the index says.
        OSError: If reading fails.
    """
    check_claims(member)
    if member.method not in (STORED, DEFLATED):
        raise CorruptPatchError(f"unknown compression method {member.method}")
    name = encoded(member.name)
    header = os.pread(handle, _LOCAL.size + len(name), member.offset)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise CorruptPatchError("no member at its place in the archive")
    _, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack_from(header)
    if flags & _IS_ENCRYPTED:
        raise CorruptPatchError("encrypted")
    if method != member.method or name_length != len(name) or header[_LOCAL.size :] != name:
        raise CorruptPatchError("local header disagrees with the directory")
    start = member.offset + _LOCAL.size + name_length + extra_length
    packed = os.pread(handle, member.compressed_size, start)
    if len(packed) < member.compressed_size:
        raise CorruptPatchError("truncated")
    unpacked = _unpack(packed, member)
    if crc32(unpacked) != member.crc32:
        raise CorruptPatchError("wrong CRC")
    return unpacked


def _unpack(packed: bytes, member: Member) -> bytes:
    if member.method == STORED:
        unpacked = packed
    else:
        try:
            unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
        except zlib.error as error:
            raise CorruptPatchError(f"cannot be inflated ({error})") from error
    if len(unpacked) != member.size:
        raise CorruptPatchError("not of the declared size")
    return unpacked
