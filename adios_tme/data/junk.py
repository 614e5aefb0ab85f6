"""What operating systems and their helpers put beside files: one rule for every reader."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.members import Directory

#: Folders of macOS, Synology, NetApp and ZFS, GNOME, Windows and Jupyter.
_FOLDERS = (
    *("__MACOSX", r"\.AppleDouble", r"\.Trashes", r"\.Trash-\d+", r"\.Spotlight-V100"),
    *(r"\.fseventsd", r"\.TemporaryItems", r"\.DocumentRevisions-V100", "@eaDir", "#recycle"),
    *(r"\.snapshot", r"\.zfs", r"\.thumbnails", r"\$RECYCLE\.BIN", r"\.ipynb_checkpoints"),
)
_FILES = (
    *(r"\._[^/\\]*", r"\.DS_Store", r"\.localized", r"\.VolumeIcon\.icns", r"\.directory"),
    *(r"(?:eh)?thumbs(?:_vista)?\.db", r"desktop\.ini", r"\.nfs[0-9a-f]+", r"\.fuse_hidden\w+"),
    *(r"~\$[^/\\]*", r"\.~lock\.[^/\\]*#"),
)
_JUNK = re.compile(
    rf"(?:^|[/\\])(?:(?:{'|'.join(_FOLDERS)})(?:[/\\]|$)|(?:{'|'.join(_FILES)})$)", re.IGNORECASE
)


def _one_of(letters: bytes) -> NDArray[np.bool_]:
    """For each byte, whether it is one of some letters."""
    table = np.zeros(256, dtype=bool)
    table[list(letters)] = True
    return table


#: How a part of such a path begins, unless the whole of it ends as below.
_BEGINS, _ENDS, _SEPARATORS = _one_of(b"._$@#~"), _one_of(b"bBiI"), _one_of(b"/\\")


def is_junk(name: str) -> bool:
    """Whether a file or folder was put there by an operating system, not by its owner.

    Args:
        name: Alone or with a path, in slashes of either kind. What lies in a folder of that kind is
            junk, too.
    """
    return _JUNK.search(name) is not None


def junk_members(directory: Directory) -> NDArray[np.bool_]:
    """Whether each member is junk; few of many names have to be looked at one by one."""
    suspects = _suspects(directory)
    for row in np.flatnonzero(suspects):
        suspects[row] = is_junk(directory.name(int(row)))
    return suspects


def _suspects(directory: Directory) -> NDArray[np.bool_]:
    names, ends = directory.names, directory.name_ends
    suspects = np.zeros(len(directory), dtype=bool)
    filled = directory.name_lengths > 0
    firsts = (ends - directory.name_lengths)[filled]
    after_separators = np.flatnonzero(_SEPARATORS[names[:-1]]) + 1
    for places in (firsts, after_separators):
        odd = places[_BEGINS[names[places]]]
        suspects[np.searchsorted(ends, odd, side="right")] = True
    suspects[filled] |= _ENDS[names[ends[filled] - 1]]
    return suspects
