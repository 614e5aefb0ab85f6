"""Which members of an archive count as patches, decided for all names at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.config.data import PatchSelection
from adios_tme.data.decode import SUFFIXES, is_image_name
from adios_tme.data.junk import junk_members
from adios_tme.data.members import UNSAFE_NAME, Directory
from adios_tme.data.names import has_group, size_by_pattern, states_size

Rows = NDArray[np.bool_]

#: Size that marks thumbnails beside patches of another size.
THUMBNAIL_SIZE_PX = 224
#: ``{idx}_x{x}_y{y}.png`` in a folder a slide: names that state no size, so that none is asked for.
_DUMP_NAME = re.compile(r"(^|[/\\])\d+_x-?\d+_y-?\d+\.\w+$")
_UNSAFE_NAME = re.compile(r"^[/\\]|^\w:|(^|[/\\])\.\.([/\\]|$)|\0")


class Sorted(NamedTuple):
    """Members of an archive by what they are; each is one of these, or the entry of a folder."""

    patches: Rows
    thumbnails: Rows
    """Images that the rule leaves out by their size, beside patches of another one."""
    not_taken: Rows
    """Other images that do not follow the rule."""
    junk: Rows
    other_files: Rows


def sort_members(directory: Directory, selection: PatchSelection) -> Sorted:
    """Tell patches from what is left out."""
    junk = junk_members(directory)
    images = _is_image(directory) & ~junk
    patches, thumbnails = _by_rule(directory, images, selection)
    files = ~_is_folder(directory)
    return Sorted(
        patches,
        thumbnails,
        images & ~patches & ~thumbnails,
        junk & files,
        files & ~images & ~junk,
    )


def select_patches(directory: Directory, selection: PatchSelection) -> Rows:
    """Whether each member is a patch: an image whose name follows the rule."""
    return sort_members(directory, selection).patches


def _by_rule(directory: Directory, images: Rows, selection: PatchSelection) -> tuple[Rows, Rows]:
    """Patches among the images, and thumbnails of them."""
    none = np.zeros_like(images)
    side, naming = selection.patch_size_px, selection.name_pattern
    if selection.all:
        return images, none
    if selection.pattern is not None:
        rule = re.compile(selection.pattern)
        return _where(directory, images, lambda name: rule.search(name) is not None), none
    if naming is not None and has_group(naming, "size"):
        return _where(directory, images, lambda name: size_by_pattern(name, naming) == side), none
    sized, unsure = _of_size(directory, images, side)
    thumbnails = unsure_thumbnails = none
    if side != THUMBNAIL_SIZE_PX:
        thumbnails, unsure_thumbnails = _of_size(directory, images, THUMBNAIL_SIZE_PX)
    # _448_7 in every name is a size and a count; in some names, it is one of many coordinates.
    if not (images & ~(sized | unsure | thumbnails | unsure_thumbnails)).any():
        sized |= unsure
    sized &= ~thumbnails
    dumps = _is_dump(directory, images & ~sized)
    return sized | dumps, thumbnails & ~dumps


def refuse_unsafe_names(directory: Directory) -> Directory:
    """Mark members whose names lead out of the archive, or hold a NUL.

    Nothing is ever extracted, so such a name does no harm here; it would in other tools, and tells
    that the archive was not made by one that writes patches.
    """
    suspects = directory.contains("..") | directory.contains("\0")
    suspects |= np.isin(_first_bytes(directory), np.frombuffer(b"/\\", dtype=np.uint8))
    suspects |= directory.contains(":")
    for row in np.flatnonzero(suspects):
        suspects[row] = _UNSAFE_NAME.search(directory.name(int(row))) is not None
    return directory.refuse(suspects, UNSAFE_NAME) if suspects.any() else directory


def describe(selection: PatchSelection) -> str:
    """The rule in words, for messages."""
    if selection.all:
        return "every image"
    if selection.pattern is not None:
        return f"names that match {selection.pattern!r}"
    if selection.name_pattern is not None and has_group(selection.name_pattern, "size"):
        return f"the size {selection.patch_size_px} by --name-pattern"
    text = f"names with _{selection.patch_size_px}_ as a size"
    if selection.patch_size_px != THUMBNAIL_SIZE_PX:
        text += f" and without _{THUMBNAIL_SIZE_PX}_"
    return f"{text}, or dumps like 12_x448_y0.png"


def _where(directory: Directory, rows: Rows, rule: Callable[[str], bool]) -> Rows:
    """Rows whose names follow a rule that looks at one at a time."""
    found = rows.copy()
    for row in np.flatnonzero(rows):
        found[row] = rule(directory.name(int(row)))
    return found


def _of_size(directory: Directory, images: Rows, side: int) -> tuple[Rows, Rows]:
    """Images that state a size, and those of which it is not sure; see `states_size`."""
    sized = images & directory.contains(f"_{side}_x")  # as in the layout for training
    unsure = np.zeros_like(images)
    for row in np.flatnonzero(images & ~sized & directory.contains(f"_{side}_")):
        verdict = states_size(directory.name(int(row)), side)
        sized[row], unsure[row] = verdict is True, verdict is None
    return sized, unsure


def _is_dump(directory: Directory, candidates: Rows) -> Rows:
    if candidates.any():
        first = _first_bytes(directory)
        starts = (first >= ord("0")) & (first <= ord("9"))
        candidates = candidates & (starts | directory.contains("/") | directory.contains("\\"))
    return _where(directory, candidates, lambda name: _DUMP_NAME.search(name) is not None)


def _first_bytes(directory: Directory) -> NDArray[np.uint8]:
    """The first byte of each name; 0 where a name is empty."""
    lengths = directory.name_lengths
    first = np.zeros(len(directory), dtype=np.uint8)
    first[lengths > 0] = directory.names[(directory.name_ends - lengths)[lengths > 0]]
    return first


def _is_folder(directory: Directory) -> Rows:
    """Whether each member stands for a folder: by a slash at its end, or no name at all."""
    filled = directory.name_lengths > 0
    found = ~filled
    last = directory.names[directory.name_ends[filled] - 1]
    found[filled] = (last == ord("/")) | (last == ord("\\"))
    return found


def _is_image(directory: Directory) -> Rows:
    """`is_image_name` of each name."""
    found = np.zeros(len(directory), dtype=bool)
    longest = max(map(len, SUFFIXES))
    rows = np.flatnonzero(directory.name_lengths > longest)
    if len(rows) < len(directory):  # names too short for the way below
        for row in np.flatnonzero(directory.name_lengths <= longest):
            found[row] = is_image_name(directory.name(int(row)))
    ends = directory.name_ends[rows]
    last = [_lower_case(directory.names[ends - back]) for back in range(1, longest + 2)]
    for suffix in SUFFIXES:
        matches = [last[back] == ord(letter) for back, letter in enumerate(reversed(suffix))]
        before = last[len(suffix)]
        named = (before != ord("/")) & (before != ord("\\"))
        found[rows] |= np.logical_and.reduce(matches) & named
    return found


def _lower_case(letters: NDArray[np.uint8]) -> NDArray[np.uint8]:
    capitals = (letters >= ord("A")) & (letters <= ord("Z"))
    return letters + np.uint8(32) * capitals
