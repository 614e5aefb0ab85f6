"""Tiles of a slide: where they lie, and how a row of the index holds one.

A row keeps x and y of level 0 in the place of the offset, the side in level 0 in that of the
compressed size, the bytes of its pixels as size, the level as method, and flags in place of the
CRC-32. Its name is worked out from these, so that it costs no bytes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.members import REFUSALS, Directory, Member

#: X and y of tiles (N, 2), in pixels of level 0.
Places = NDArray[np.int64]

_Y_BITS = 32
_MASK = (1 << _Y_BITS) - 1
_CONVERTS_COLOURS = 1
#: Levels that a row may name; above them are the marks of refused members.
MAX_LEVELS = min(REFUSALS)


class Tile(NamedTuple):
    """A square part of a slide, and how it is read."""

    x: int
    """Left edge in pixels of level 0; y is the upper one."""
    y: int
    side: int
    """In pixels of level 0."""
    size_px: int
    """Side of the image that it becomes."""
    level: int
    """At which reading begins."""
    icc: bool = False
    """Whether colours are converted to sRGB."""


def tile_of(member: Member) -> Tile:
    """The tile that a row of the index holds."""
    x, y = place_of(member)
    size_px = math.isqrt(member.size // 3)
    icc = bool(member.crc32 & _CONVERTS_COLOURS)
    return Tile(x, y, member.compressed_size, size_px, member.method, icc)


def place_of(member: Member) -> tuple[int, int]:
    """X and y of a row's tile, in pixels of level 0."""
    return member.offset >> _Y_BITS, member.offset & _MASK


def places_of(offsets: NDArray[np.generic]) -> Places:
    """X and y of many rows (N, 2)."""
    packed = offsets.astype(np.uint64)
    columns = packed >> np.uint64(_Y_BITS), packed & np.uint64(_MASK)
    return np.stack(columns, axis=1).astype(np.int64)


def directory_of_tiles(
    places: Places, side: int, size_px: int, level: int, *, icc: bool
) -> Directory:
    """Rows of a slide's tiles, which have all but their places in common."""
    count = len(places)
    x, y = places.astype(np.uint64).reshape(count, 2).T
    return Directory(
        names=np.empty(0, np.uint8),
        name_ends=np.zeros(count, np.int64),
        offset=(x << np.uint64(_Y_BITS)) | y,
        compressed_size=np.full(count, side, np.uint64),
        size=np.full(count, 3 * size_px * size_px, np.uint64),
        crc32=np.full(count, _CONVERTS_COLOURS * icc, np.uint32),
        method=np.full(count, level, np.uint8),
    )


def tile_name(slide: str, size_px: int, x: int, y: int, mpp: float) -> str:
    """Name of a tile without suffix, as `adios_tme.data.names` reads it.

    Args:
        slide: Name of the slide, without folders.
        size_px: Side of the tile's image.
        x: In pixels of level 0, as y is.
        y: See x.
        mpp: Microns per pixel of the image.
    """
    return f"{slide}_{size_px}_x{x}_y{y}_mpp{mpp:g}"


def grid(slide_size: tuple[int, int], side: int, step: float) -> Places:
    """Places of all tiles that lie whole inside a slide, row by row.

    Args:
        slide_size: Width and height in pixels of level 0.
        side: Of a tile, in pixels of level 0.
        step: From one tile to the next, in pixels of level 0.
    """
    x, y = (_along(length, side, step) for length in slide_size)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def aligned(places: Places, downsample: float) -> Places:
    """Places moved up and left by less than a pixel of a level, onto its pixels.

    A region that begins between two pixels is interpolated, which blurs it.
    """
    on_level = np.floor(places / downsample + 1e-6)
    return (on_level * downsample).round().astype(np.int64)


def _along(length: int, side: int, step: float) -> NDArray[np.int64]:
    if side > length:
        return np.empty(0, np.int64)
    places = (np.arange(int((length - side) / step) + 2) * step).round().astype(np.int64)
    return places[places <= length - side]


def share_of_tissue(
    places: Places, side: int, mask: NDArray[np.bool_], downsample: tuple[float, float]
) -> NDArray[np.float64]:
    """Share of each tile (0 to 1) that is tissue.

    Args:
        places: Of the tiles.
        side: In pixels of level 0.
        mask: Tissue (H, W) at a coarse scale.
        downsample: Pixels of level 0 to one of the mask, across and down.
    """
    height, width = mask.shape
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    left, right = _edges(places[:, 0], side, downsample[0], width)
    top, bottom = _edges(places[:, 1], side, downsample[1], height)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside / ((right - left) * (bottom - top))


def _edges(
    starts: NDArray[np.int64], side: int, scale: float, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last mask pixel of each tile along an axis; that of its centre, if it is small."""
    first, last = (((starts + offset) / scale).round().astype(np.int64) for offset in (0, side))
    centre = ((starts + side / 2) / scale).astype(np.int64).clip(0, length - 1)
    is_small = last.clip(0, length) <= first
    return np.where(is_small, centre, first), np.where(is_small, centre + 1, last.clip(0, length))
