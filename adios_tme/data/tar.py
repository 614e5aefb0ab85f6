"""Tar archives: their headers one after the other, and one member by a single read.

The layouts are POSIX ustar and pax, and GNU's long names. A tar has no directory and no checksum of
its contents, so that indexing walks from header to header, and reading checks the header alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.members import (
    NOT_REGULAR,
    OUTSIDE,
    STORED,
    Directory,
    Member,
    check_claims,
    damaged_archive,
    directory_of,
    open_archive_file,
    text,
)

BLOCK_BYTES = 512
#: Longest extended header; it holds a name and some attributes.
MAX_EXTENDED_BYTES = 1 << 20

_REGULAR = (b"0", b"\0", b"7")
_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_GLOBAL, _FOLDER = b"L", b"K", b"x", b"g", b"5"


class Header(NamedTuple):
    """One header block."""

    name: bytes
    size: int
    kind: bytes


def parse_header(block: bytes) -> Header | None:
    """Read a header block; None where it is none.

    Args:
        block: 512 bytes.
    """
    if len(block) != BLOCK_BYTES:
        return None
    checksum, size = _number(block[148:156]), _number(block[124:136])
    counted = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if checksum != counted or size is None:
        return None
    name, prefix = (part.split(b"\0", 1)[0] for part in (block[:100], block[345:500]))
    if prefix and block[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return Header(name, size, block[156:157])


def read_tar_directory(path: Path) -> Directory:
    """List the members of a tar; links and members that are cut short are marked as refused.

    Raises:
        DataError: If it is compressed, damaged or no regular file.
        OSError: If it cannot be opened.
    """
    handle = open_archive_file(path)
    try:
        return directory_of(_walk(handle, os.fstat(handle).st_size, path))
    finally:
        os.close(handle)


def _walk(handle: int, archive_size: int, path: Path) -> list[Member]:
    members: list[Member] = []
    at = 0
    long_name: bytes | None = None
    wide_size: int | None = None
    while at < archive_size:
        block = os.pread(handle, BLOCK_BYTES, at)
        if not any(block):
            break  # two empty blocks close a tar; one is enough to know
        header = parse_header(block)
        if header is None:
            raise damaged_archive(path, f"it is no tar, or damaged at byte {at}")
        if header.kind in (_GNU_LONG_NAME, _GNU_LONG_LINK, _PAX, _PAX_GLOBAL):
            body = _extended(handle, at, header.size, path)
            if header.kind == _GNU_LONG_NAME:
                long_name = body.rstrip(b"\0")
            elif header.kind == _PAX:
                records = _pax_records(body)
                long_name = records.get(b"path", long_name)
                wide_size = _pax_size(records, path)
            size = header.size
        else:
            size = header.size if wide_size is None else wide_size
            if header.kind != _FOLDER:
                fits = at + BLOCK_BYTES + size <= archive_size
                members.append(_member(long_name or header.name, at, size, header.kind, fits))
            long_name = wide_size = None
        at += BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES
    return members


def _member(name: bytes, at: int, size: int, kind: bytes, fits: bool) -> Member:
    method = STORED if kind in _REGULAR else NOT_REGULAR
    if not fits:
        method = OUTSIDE
    claimed = min(size, (1 << 64) - 1)
    return Member(text(name.removeprefix(b"./")), at, claimed, claimed, 0, method)


def _extended(handle: int, at: int, size: int, path: Path) -> bytes:
    """The body of an extended header."""
    if size > MAX_EXTENDED_BYTES:
        raise damaged_archive(path, f"its extended header at byte {at} states {size} bytes")
    return os.pread(handle, size, at + BLOCK_BYTES)


def _pax_records(body: bytes) -> dict[bytes, bytes]:
    """``LENGTH KEY=VALUE`` lines; what follows a malformed one is left out."""
    records: dict[bytes, bytes] = {}
    while body:
        digits, space, _ = body[:20].partition(b" ")
        if not (space and digits.isdigit() and len(digits) < int(digits) <= len(body)):
            break
        key, _, value = body[len(digits) + 1 : int(digits)].rstrip(b"\n").partition(b"=")
        records[key] = value
        body = body[int(digits) :]
    return records


def _pax_size(records: dict[bytes, bytes], path: Path) -> int | None:
    size = records.get(b"size")
    if size is None:
        return None
    if not size.isdigit() or len(size) > 20:
        raise damaged_archive(path, "one of its members has no readable size")
    return int(size)


def _number(field: bytes) -> int | None:
    """An octal number, or GNU's base 256; None for anything else and for what is below zero."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None


def read_tar_member(handle: int, member: Member) -> bytes:
    """Read one member with a single ``pread``, and check that its header is still there.

    Args:
        handle: Open file descriptor of the tar.
        member: As the index says.

    Raises:
        CorruptPatchError: If the tar does not hold what the index says.
        OSError: If reading fails.
    """
    check_claims(member)
    content = os.pread(handle, BLOCK_BYTES + member.size, member.offset)
    header = parse_header(content[:BLOCK_BYTES])
    if header is None or header.kind not in _REGULAR:
        raise CorruptPatchError("no member at its place in the archive")
    if header.size not in (member.size, 0):  # zero where a pax record has the size
        raise CorruptPatchError("header disagrees with the index")
    if len(content) < BLOCK_BYTES + member.size:
        raise CorruptPatchError("truncated")
    return content[BLOCK_BYTES:]
