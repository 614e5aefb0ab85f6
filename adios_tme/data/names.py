"""What the name of a patch states: slide, place, size, magnification, microns per pixel.

The conventions are those of the table in docs/data.md. What could mean two things stays unknown,
unless ``--name-pattern`` says how it is meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from adios_tme.config.data import NAME_GROUPS

Number = TypeVar("Number", int, float)

#: Sides of patches, in pixels, that a bare number may state.
_SMALLEST_SIDE, _LARGEST_SIDE, _STEP_OF_SIDES = 64, 8192, 32
#: Of the objectives that slides are scanned with, and of the levels made from them.
_MAGNIFICATIONS = frozenset((1, 1.25, 2, 2.5, 4, 5, 10, 16, 20, 25, 40, 60, 63, 80, 100))
_LEAST_MPP, _MOST_MPP = 0.05, 50.0

_FROM, _TO = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9]|\.\d)"
#: Longest part of a path, as file systems have it; a longer one states nothing.
_LONGEST_PART = 255

_SUFFIX = re.compile(r"\.[A-Za-z]{3,4}$")
_QUPATH_FIELD = re.compile(r"([a-z])=(-?\d{1,12}(?:\.\d{1,12})?)(?=,|\]|$)")
_X, _Y = r"x[=_]?(-?\d{1,12})", r"y[=_]?(-?\d{1,12})"
_XY = re.compile(rf"{_FROM}{_X}[_,; -]+{_Y}{_TO}", re.IGNORECASE)
_YX = re.compile(rf"{_FROM}{_Y}[_,; -]+{_X}{_TO}", re.IGNORECASE)
_NUMBER_FIRST = re.compile(rf"{_FROM}(-?\d{{1,12}})x_(-?\d{{1,12}})y{_TO}", re.IGNORECASE)
_BEFORE_XY = re.compile(rf"(?:^|_)(\d{{1,12}})(?:px)?_{_X}_{_Y}{_TO}", re.IGNORECASE)
_PIXELS = re.compile(rf"{_FROM}(\d{{1,12}})px{_TO}(?!_overlap)", re.IGNORECASE)
_OVERLAP = re.compile(rf"{_FROM}(\d{{1,12}})px_overlap{_TO}", re.IGNORECASE)
_MAGNIFICATION = re.compile(
    rf"{_FROM}(?<!\.)(?:mag[_=-]?)?(\d{{1,3}}(?:\.\d+)?)x{_TO}|{_FROM}mag[_=-]?(\d{{1,3}}){_TO}",
    re.IGNORECASE,
)
_MPP = re.compile(r"mpp[_=-]?(\d+(?:\.\d+)?)|(?<!\d)(\d+\.\d+)[_-]?mpp", re.IGNORECASE)
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_BARCODE = re.compile(rf"TCGA-\w{{2}}-\w{{4}}-\w{{3}}-\w{{2,3}}-\w{{2,4}}(?:\.{_UUID})?{_TO}")
_CALLED_SLIDE = re.compile(rf"^((?:slide|wsi)[_-]?[A-Za-z0-9-]+)_\d+_{_X}_{_Y}$", re.IGNORECASE)
_DEEP_ZOOM = re.compile(r"_files/\d+$")

_AXIS = re.compile(r"(?:^|_)(?:x|y|row|col|i|j|left|top)$", re.IGNORECASE)
_BARE_NUMBERS = re.compile(r"-?\d+(?:_-?\d+)*")
_PADDED = re.compile(r"0\d+")


class NameFacts(NamedTuple):
    """What a name states; None: nothing, or nothing certain."""

    slide: str | None = None
    x: int | None = None
    """In pixels, as y is."""
    y: int | None = None
    size: int | None = None
    """Side of the image in pixels."""
    magnification: float | None = None
    mpp: float | None = None
    """Microns per pixel."""
    overlap: int | None = None
    """Of neighbouring patches in pixels, as a folder like ``20x_256px_0px_overlap`` states it."""
    level0_size: int | None = None
    """Side in pixels of the slide at its full resolution, which QuPath states."""


def parse_name(name: str, pattern: str | None = None, container: str = "") -> NameFacts:
    """What the name of an image states, and of its size and scale also what its folders do.

    Args:
        name: With the folders inside its archive, in slashes of either kind.
        pattern: Regular expression with groups out of `NAME_GROUPS`; it alone decides what it has
            groups for.
        container: Path of the archive or folder in which the image lies.
    """
    parts = _parts(f"{container}/{name}")
    x, y = _place(parts[-1])
    facts = NameFacts(
        _slide(parts[-1]),
        x,
        y,
        _nearest(_sizes, parts),
        _nearest(_magnifications, parts),
        _nearest(_microns, parts),
        _nearest(_overlaps, parts),
        _nearest(_level0_sizes, parts),
    )
    return facts._replace(**_by_pattern(name, pattern)) if pattern else facts


def coordinates(name: str, pattern: str | None = None) -> tuple[int, int] | None:
    """X and y in pixels, where the file's own name states them."""
    facts = _by_pattern(name, pattern) if pattern else {}
    x, y = (facts["x"], facts["y"]) if "x" in facts else _place(_parts(name)[-1])
    return None if x is None or y is None else (x, y)


def slide_of(container: str, name: str, pattern: str | None = None) -> str:
    """The slide of a patch: the place where it lies, and what its own name states of it.

    Args:
        container: Path of the archive, without its suffix, or of the folder.
        name: Of the patch, inside it.
        pattern: See `parse_name`; what its slide group matches is the slide, wherever it lies.
    """
    stated = _by_pattern(name, pattern).get("slide") if pattern else None
    if stated is not None:
        return str(stated)
    *folders, stem = _parts(name)
    place = _DEEP_ZOOM.sub("", "/".join([container, *filter(_is_no_region, folders)]))
    stated = _slide(stem)
    return place if stated in (None, place.rpartition("/")[2]) else f"{place}/{stated}"


def _is_no_region(folder: str) -> bool:
    """Whether a folder may be a slide; one that states a place is a part of it."""
    return bool(folder) and _place(folder) == (None, None)


def names_state_slides(names: Sequence[str], pattern: str | None) -> bool:
    """Whether patches are told apart by their own names, beyond the folder in which they lie."""
    if pattern is not None and has_group(pattern, "slide"):
        return True
    return any(_slide(_parts(name)[-1]) is not None for name in names)


def states_size(path: str, side: int) -> bool | None:
    """Whether ``_SIDE_`` stands in a name as the size of the image; None: it may be a coordinate.

    Args:
        path: Name with its folders.
        side: In pixels.
    """
    verdicts = [_part_states_size(part, side) for part in _parts(path)]
    return True if True in verdicts else None if None in verdicts else False


def has_group(pattern: str, group: str) -> bool:
    """Whether ``--name-pattern`` says what a group of `NAME_GROUPS` is."""
    return group in _compiled(pattern).groupindex


def follows_pattern(name: str, pattern: str) -> bool:
    """Whether ``--name-pattern`` matches a name."""
    return _compiled(pattern).search(name.replace("\\", "/")) is not None


def size_by_pattern(name: str, pattern: str) -> int | None:
    """The size that ``--name-pattern`` finds in a name."""
    size: int | None = _by_pattern(name, pattern).get("size")
    return size


def _parts(path: str) -> list[str]:
    """Folders and the file, without its suffix."""
    *folders, file = path.replace("\\", "/").split("/")
    return [*folders, _SUFFIX.sub("", file) if len(file) <= _LONGEST_PART else ""]


def _place(stem: str) -> tuple[int | None, int | None]:
    qupath = _qupath_fields(stem)
    if "x" in qupath and "y" in qupath:
        return int(qupath["x"]), int(qupath["y"])
    found = [match for rule in (_XY, _NUMBER_FIRST) for match in rule.finditer(stem)]
    if found:
        last = max(found, key=lambda match: match.start())
        return int(last[1]), int(last[2])
    turned = list(_YX.finditer(stem))
    if turned:
        return int(turned[-1][2]), int(turned[-1][1])
    square = _square(stem)
    return (square.x, square.y) if square else (None, None)


def _slide(stem: str) -> str | None:
    barcode = _BARCODE.search(stem)
    if barcode:
        return barcode[0]
    square = _square(stem)
    if square:
        return square.slide
    if "x" in _qupath_fields(stem):
        return stem.rpartition("[")[0].rstrip(" _-") or None
    called = _CALLED_SLIDE.match(stem)
    return called[1] if called else None


def _sizes(part: str) -> set[int]:
    """Every size that a part of a path states."""
    sizes = {int(match[1]) for match in _PIXELS.finditer(part)} - {0}
    before_xy = _number_before_xy(part)
    if before_xy is not None and _is_usual_side(before_xy):
        sizes.add(before_xy)
    square = _square(part)
    if square:
        sizes.add(square.side)
    qupath = _qupath_fields(part)
    shrunk = qupath.get("d", 1.0)
    if shrunk > 0 and 0 < qupath.get("w", 0) == qupath.get("h"):
        sizes.add(round(qupath["w"] / shrunk))
    return sizes


def _magnifications(part: str) -> set[float]:
    found = _MAGNIFICATION.finditer(_NUMBER_FIRST.sub("", part))
    return {float(match[1] or match[2]) for match in found} & _MAGNIFICATIONS


def _microns(part: str) -> set[float]:
    found = {float(match[1] or match[2]) for match in _MPP.finditer(part)}
    return {mpp for mpp in found if _LEAST_MPP <= mpp <= _MOST_MPP}


def _overlaps(part: str) -> set[int]:
    return {int(match[1]) for match in _OVERLAP.finditer(part)}


def _level0_sizes(part: str) -> set[int]:
    qupath = _qupath_fields(part)
    is_square = 0 < qupath.get("w", 0) == qupath.get("h")
    return {round(qupath["w"])} if is_square else set()


def _nearest(find: Callable[[str], set[Number]], parts: list[str]) -> Number | None:
    """What the last part that states anything states; None where it states two things."""
    for part in reversed(parts):
        found = find(part)
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _part_states_size(part: str, side: int) -> bool | None:
    if len(part) > _LONGEST_PART:
        return False
    square = _square(part)
    if square:
        return square.side == side
    before_xy = _number_before_xy(part)
    if before_xy == side:
        return True
    if before_xy is not None and _is_usual_side(before_xy):
        return False  # that is the size, so that the other number is none
    verdict: bool | None = False
    for match in re.finditer(rf"(?<=_){side}(?=_)", part):
        before, after = part[: match.start() - 1], part[match.end() + 1 :]
        if _AXIS.search(before):
            continue
        if not _BARE_NUMBERS.fullmatch(after) or _PADDED.fullmatch(after):
            return True
        verdict = None
    return verdict


def _number_before_xy(part: str) -> int | None:
    """The number that stands before ``_x100_y200``: a size, or the count of patches."""
    found = list(_BEFORE_XY.finditer(part))
    return int(found[-1][1]) if found else None


def _is_usual_side(number: int) -> bool:
    return _SMALLEST_SIDE <= number <= _LARGEST_SIDE and number % _STEP_OF_SIDES == 0


class _Square(NamedTuple):
    """``SLIDE_X_Y_W_H``, where W and H are one."""

    slide: str | None
    x: int
    y: int
    side: int


def _square(stem: str) -> _Square | None:
    if len(stem) > _LONGEST_PART:
        return None
    slide, *numbers = stem.rsplit("_", 4) if stem.count("_") > 3 else ("", *stem.split("_"))
    if len(numbers) != 4 or numbers[2] != numbers[3] or not all(map(str.isdecimal, numbers)):
        return None
    x, y, side, _ = map(int, numbers)
    return _Square(slide or None, x, y, side) if _is_usual_side(side) else None


def _qupath_fields(stem: str) -> dict[str, float]:
    """``[d=2,x=100,y=200,w=896,h=896]``; x and y in pixels of the slide, d the downsampling."""
    _, bracket, fields = stem.rpartition("[")
    if not bracket or "]" not in fields:
        return {}
    return {field[1]: float(field[2]) for field in _QUPATH_FIELD.finditer(fields)}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _by_pattern(name: str, pattern: str) -> dict[str, Any]:
    """What a pattern finds for each of its groups: a slide, whole numbers, or microns; or None."""
    rule = _compiled(pattern)
    match = rule.search(name.replace("\\", "/"))
    return {
        group: _value(group, match[group] if match else None)
        for group in NAME_GROUPS
        if group in rule.groupindex
    }


def _value(group: str, text: str | None) -> str | int | float | None:
    if not text or group == "slide":
        return text or None
    kind = float if group == "mpp" else int
    try:
        return kind(text)
    except ValueError:  # the pattern lets through what is no number
        return None
