"""Plain folders of images: each folder is a source of its own, each file in it a member."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.corrupt import ChangedSinceIndexedError, CorruptPatchError
from adios_tme.data.decode import is_image_name
from adios_tme.data.junk import is_junk
from adios_tme.data.members import (
    NOT_REGULAR,
    OPEN_FLAGS,
    REFUSALS,
    STORED,
    Directory,
    Member,
    check_claims,
    directory_of,
    text,
)
from adios_tme.files import PNG_METADATA

#: Files of a folder that are all opened to see who drew them; in a larger one, only this many of
#: those whose names differ in nothing but numbers, which then stand for the others.
MOST_OPENED, OPENED_OF_A_KIND = 1000, 8
_NUMBERS = re.compile(r"[0-9A-Fa-f]*[0-9][0-9A-Fa-f]*")
_DRAWN_BY_US = tuple(f"{key}\0{value}".encode() for key, value in PNG_METADATA.items())
#: Of a PNG, where its metadata stands that comes before the pixels.
_PNG_START_BYTES = 512


def read_folder(path: Path) -> Directory:
    """List the images of a folder, sorted by name, without opening them; junk is passed over.

    What has an image's name and is no regular file is marked as refused.

    Raises:
        OSError: If the folder cannot be read.
    """
    members = []
    with os.scandir(os.fsencode(path)) as entries:
        for entry in entries:
            if is_image_name(text(entry.name)) and not is_junk(text(entry.name)):
                members.append(_member(entry))
    return directory_of(sorted(member for member in members if member is not None))


def _member(entry: os.DirEntry[bytes]) -> Member | None:
    try:
        found = entry.stat()
    except OSError:  # a link that leads nowhere, or a file that has just gone
        return Member(text(entry.name), 0, 0, 0, 0, NOT_REGULAR)
    if stat.S_ISDIR(found.st_mode):
        return None
    method = STORED if stat.S_ISREG(found.st_mode) else NOT_REGULAR
    return Member(text(entry.name), 0, found.st_size, found.st_size, 0, method)


def own_pictures(folder: Path, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which images of a folder are pictures that we have drawn ourselves, by their metadata."""
    kinds: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name.lower().endswith(".png"):
            kind = _NUMBERS.sub("0", name) if len(names) > MOST_OPENED else ""
            kinds.setdefault(kind, []).append(row)
    own = np.zeros(len(names), dtype=bool)
    for kind, rows in kinds.items():
        some = rows[:: max(1, len(rows) // OPENED_OF_A_KIND)] if kind else rows
        if any(_is_own_picture(folder / names[row]) for row in some):
            own[rows] = [_is_own_picture(folder / names[row]) for row in rows]
    return own


def _is_own_picture(path: Path) -> bool:
    """Whether a file is a picture that we have drawn, by how it begins."""
    try:
        handle = os.open(path, OPEN_FLAGS)
    except OSError:  # told when it is read
        return False
    try:
        regular = stat.S_ISREG(os.fstat(handle).st_mode)
        start = os.read(handle, _PNG_START_BYTES) if regular else b""
    finally:
        os.close(handle)
    return any(mark in start for mark in _DRAWN_BY_US)


def read_file(folder: int, member: Member) -> bytes:
    """Read one file of a folder.

    Args:
        folder: Open file descriptor of the folder.
        member: As the index says.

    Raises:
        CorruptPatchError: If it is not what the index says.
        OSError: If it cannot be opened or read.
    """
    check_claims(member)
    if not member.name or {"/", "\0"} & set(member.name):
        raise CorruptPatchError("its name is not that of a file in the folder")
    handle = os.open(os.fsencode(member.name), OPEN_FLAGS, dir_fd=folder)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise CorruptPatchError(REFUSALS[NOT_REGULAR])
        if found.st_size != member.size:
            raise ChangedSinceIndexedError("file has changed since it was indexed")
        content = os.pread(handle, member.size, 0)
    finally:
        os.close(handle)
    if len(content) < member.size:
        raise CorruptPatchError("truncated")
    return content
