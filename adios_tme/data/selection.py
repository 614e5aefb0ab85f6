"""Which members of an archive count as patches, decided for all names at once."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from adios_tme.config.data import PatchSelection
from adios_tme.data.decode import SUFFIXES, is_image_name
from adios_tme.data.members import UNSAFE_NAME, Directory

#: Size that marks thumbnails beside patches of another size.
THUMBNAIL_SIZE_PX = 224
#: ``{idx}_x{x}_y{y}.png`` in a folder a slide: names that state no size, so that none is asked for.
_DUMP_NAME = re.compile(r"(^|/)\d+_x-?\d+_y-?\d+\.\w+$")
_UNSAFE_NAME = re.compile(r"^[/\\]|^\w:|(^|[/\\])\.\.([/\\]|$)|\0")


def select_patches(directory: Directory, selection: PatchSelection) -> NDArray[np.bool_]:
    """Whether each member is a patch: an image whose name follows the rule."""
    chosen = _is_image(directory)
    if selection.all:
        return chosen
    if selection.pattern is not None:
        rule = re.compile(selection.pattern)
        for row in np.flatnonzero(chosen):
            chosen[row] = rule.search(directory.name(int(row))) is not None
        return chosen
    images = chosen
    chosen = images & _contains(directory, f"_{selection.patch_size_px}_")
    if selection.patch_size_px != THUMBNAIL_SIZE_PX:
        chosen &= ~_contains(directory, f"_{THUMBNAIL_SIZE_PX}_")
    return chosen | _is_dump(directory, images & ~chosen)


def refuse_unsafe_names(directory: Directory) -> Directory:
    """Mark members whose names lead out of the archive, or hold a NUL.

    Nothing is ever extracted, so such a name does no harm here; it would in other tools, and tells
    that the archive was not made by one that writes patches.
    """
    suspects = _contains(directory, "..") | _contains(directory, "\0")
    suspects |= np.isin(_first_bytes(directory), np.frombuffer(b"/\\", dtype=np.uint8))
    suspects |= _contains(directory, ":")
    for row in np.flatnonzero(suspects):
        suspects[row] = _UNSAFE_NAME.search(directory.name(int(row))) is not None
    return directory.refuse(suspects, UNSAFE_NAME) if suspects.any() else directory


def describe(selection: PatchSelection) -> str:
    """The rule in words, for messages."""
    if selection.all:
        return "every image"
    if selection.pattern is not None:
        return f"names that match {selection.pattern!r}"
    text = f"names with _{selection.patch_size_px}_"
    if selection.patch_size_px != THUMBNAIL_SIZE_PX:
        text += f" and without _{THUMBNAIL_SIZE_PX}_"
    return f"{text}, or dumps like 12_x448_y0.png"


def _is_dump(directory: Directory, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    found = candidates.copy()
    if found.any():
        first = _first_bytes(directory)
        found &= ((first >= ord("0")) & (first <= ord("9"))) | _contains(directory, "/")
    for row in np.flatnonzero(found):
        found[row] = _DUMP_NAME.search(directory.name(int(row))) is not None
    return found


def _first_bytes(directory: Directory) -> NDArray[np.uint8]:
    """The first byte of each name; 0 where a name is empty."""
    lengths = directory.name_lengths
    first = np.zeros(len(directory), dtype=np.uint8)
    first[lengths > 0] = directory.names[(directory.name_ends - lengths)[lengths > 0]]
    return first


def _contains(directory: Directory, text: str) -> NDArray[np.bool_]:
    """Whether each name holds a text, found in all names at once."""
    names, token = directory.names, text.encode()
    found = np.zeros(len(directory), dtype=bool)
    places = max(0, len(names) - len(token) + 1)
    hits = names[:places] == token[0]
    for shift, letter in enumerate(token[1:], start=1):
        hits &= names[shift : shift + places] == letter
    starts = np.flatnonzero(hits)
    rows = np.searchsorted(directory.name_ends, starts, side="right")
    within = starts + len(token) <= directory.name_ends[rows]
    found[rows[within]] = True
    return found


def _is_image(directory: Directory) -> NDArray[np.bool_]:
    """Whether each name ends like an image's, in letters of either case."""
    found = np.zeros(len(directory), dtype=bool)
    longest = max(map(len, SUFFIXES))
    rows = np.flatnonzero(directory.name_lengths > longest)
    if len(rows) < len(directory):  # names too short for the way below
        for row in np.flatnonzero(directory.name_lengths <= longest):
            name = directory.name(int(row))
            found[row] = is_image_name(name) and name.lower() not in SUFFIXES
    ends = directory.name_ends[rows]
    last = [_lower_case(directory.names[ends - back]) for back in range(1, longest + 1)]
    for suffix in SUFFIXES:
        matches = [last[back] == ord(letter) for back, letter in enumerate(reversed(suffix))]
        found[rows] |= np.logical_and.reduce(matches)
    return found


def _lower_case(letters: NDArray[np.uint8]) -> NDArray[np.uint8]:
    capitals = (letters >= ord("A")) & (letters <= ord("Z"))
    return letters + np.uint8(32) * capitals
