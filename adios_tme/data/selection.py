"""Which members of an archive count as patches, decided for all names at once."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from adios_tme.config.data import PatchSelection
from adios_tme.data.archive import MAX_MEMBER_BYTES, Directory
from adios_tme.data.decode import SUFFIXES

#: Size that marks thumbnails beside patches of another size.
THUMBNAIL_SIZE_PX = 224


def select_patches(directory: Directory, selection: PatchSelection) -> NDArray[np.bool_]:
    """Whether each member is a patch: an image of sane size whose name follows the rule."""
    chosen = _is_image(directory)
    chosen &= directory.size <= MAX_MEMBER_BYTES
    chosen &= directory.compressed_size <= MAX_MEMBER_BYTES
    if selection.all:
        return chosen
    if selection.pattern is not None:
        rule = re.compile(selection.pattern)
        for row in np.flatnonzero(chosen):
            chosen[row] = rule.search(directory.name(int(row))) is not None
        return chosen
    chosen &= _contains(directory, f"_{selection.patch_size_px}_")
    if selection.patch_size_px != THUMBNAIL_SIZE_PX:
        chosen &= ~_contains(directory, f"_{THUMBNAIL_SIZE_PX}_")
    return chosen


def describe(selection: PatchSelection) -> str:
    """The rule in words, for messages."""
    if selection.all:
        return "every image"
    if selection.pattern is not None:
        return f"names that match {selection.pattern!r}"
    text = f"names with _{selection.patch_size_px}_"
    if selection.patch_size_px != THUMBNAIL_SIZE_PX:
        text += f" and without _{THUMBNAIL_SIZE_PX}_"
    return text


def _contains(directory: Directory, text: str) -> NDArray[np.bool_]:
    """Whether each name holds a text, found in all names at once."""
    names, token = directory.names, np.frombuffer(text.encode(), dtype=np.uint8)
    found = np.zeros(len(directory), dtype=bool)
    if len(names) < len(token):
        return found
    hits = np.ones(len(names) - len(token) + 1, dtype=bool)
    for shift, letter in enumerate(token):
        hits &= names[shift : shift + len(hits)] == letter
    starts = np.flatnonzero(hits)
    rows = np.searchsorted(directory.name_ends, starts, side="right")
    within = starts + len(token) <= directory.name_ends[rows]
    found[rows[within]] = True
    return found


def _is_image(directory: Directory) -> NDArray[np.bool_]:
    found = np.zeros(len(directory), dtype=bool)
    lengths = np.diff(directory.name_ends, prepend=0)
    for suffix in SUFFIXES:
        rows = np.flatnonzero(lengths > len(suffix))
        places = directory.name_ends[rows, None] - np.arange(len(suffix), 0, -1)
        ends = directory.names[places]
        ends = np.where((ends >= ord("A")) & (ends <= ord("Z")), ends + 32, ends)
        found[rows] |= (ends == np.frombuffer(suffix.encode(), dtype=np.uint8)).all(axis=1)
    return found
