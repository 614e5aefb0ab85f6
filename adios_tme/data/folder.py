"""Plain folders of images: each folder is a source of its own, each file in it a member."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import is_image_name
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


def read_folder(path: Path) -> Directory:
    """List the images of a folder, sorted by name, without opening them.

    What has an image's name and is no regular file is marked as refused.

    Raises:
        OSError: If the folder cannot be read.
    """
    members = []
    with os.scandir(os.fsencode(path)) as entries:
        for entry in entries:
            if is_image_name(text(entry.name)):
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
            raise CorruptPatchError("file has changed since it was indexed")
        content = os.pread(handle, member.size, 0)
    finally:
        os.close(handle)
    if len(content) < member.size:
        raise CorruptPatchError("truncated")
    return content
