"""A pyramid of large pictures on the disk, tile by tile, in memory that does not grow with them.

Shape legend: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
Halve = Callable[[Pixels], Pixels]

#: Side of the tiles.
TILE_PX = 512
#: Levels are halved until none of their sides is longer.
LARGEST_PX = 512


class Place(NamedTuple):
    """Where a tile belongs."""

    level: int
    channel: int
    row: int
    column: int

    @property
    def coarser(self) -> Place:
        """The tile of the next level that shows it."""
        return Place(self.level + 1, self.channel, self.row // 2, self.column // 2)

    @property
    def finer(self) -> Iterator[Place]:
        """The four tiles that it is made from, row by row."""
        for number in range(4):
            row, column = 2 * self.row + number // 2, 2 * self.column + number % 2
            yield Place(self.level - 1, self.channel, row, column)


class TileStore:
    """Channels of a picture and its coarser levels; only tiles that were written take room.

    Args:
        file: Takes the tiles; empty, open for reading and writing.
        size: Width and height in pixels.
        num_channels: Channels, each with tiles of its own.
        dtype: Of a pixel.
    """

    def __init__(
        self, file: IO[bytes], size: tuple[int, int], num_channels: int, dtype: type[np.generic]
    ) -> None:
        self.num_channels = num_channels
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.sizes = _sizes(size)
        self._file = file
        self._slots: dict[Place, int] = {}

    def paint(self, channel: int, corner: tuple[int, int], pixels_HW: Pixels) -> None:
        """Put a part, which lies inside, onto the finest level; its zeros leave what is there.

        Args:
            channel: Where to.
            corner: Left and upper edge.
            pixels_HW: The part.
        """
        left, top = corner
        bottom, right = top + pixels_HW.shape[0], left + pixels_HW.shape[1]
        for row in range(top // TILE_PX, -(-bottom // TILE_PX)):
            for column in range(left // TILE_PX, -(-right // TILE_PX)):
                upper, first = max(top, row * TILE_PX), max(left, column * TILE_PX)
                lower, last = min(bottom, (row + 1) * TILE_PX), min(right, (column + 1) * TILE_PX)
                part_HW = pixels_HW[upper - top : lower - top, first - left : last - left]
                if not part_HW.any():
                    continue
                place = Place(0, channel, row, column)
                tile_HW = self.tile(place)
                down, across = upper - row * TILE_PX, first - column * TILE_PX
                there_HW = tile_HW[down:, across:][: lower - upper, : last - first]
                np.copyto(there_HW, part_HW, where=part_HW != 0)
                self._write(place, tile_HW)

    def fill_levels(self, halve: Halve) -> None:
        """Make every coarser level from the one before it.

        Args:
            halve: From pixels (2 H, 2 W) to (H, W).
        """
        for level in range(1, len(self.sizes)):
            down, across = self.num_tiles(level)
            above = {place.coarser for place in self._slots if place.level == level - 1}
            for place in sorted(above):
                if place.row < down and place.column < across:
                    four = [self.tile(one) for one in place.finer]
                    self._write(place, halve(np.block([four[:2], four[2:]])))

    def num_tiles(self, level: int) -> tuple[int, int]:
        """Tiles down and across."""
        width, height = self.sizes[level]
        return -(-height // TILE_PX), -(-width // TILE_PX)

    def places(self, level: int) -> Iterator[Place]:
        """All tiles of a level: channel by channel, row by row."""
        down, across = self.num_tiles(level)
        for channel in range(self.num_channels):
            for number in range(down * across):
                yield Place(level, channel, *divmod(number, across))

    def is_blank(self, place: Place) -> bool:
        """Whether nothing was written there."""
        return place not in self._slots

    def tile(self, place: Place) -> Pixels:
        """A whole tile (H, W); beyond the edges of the picture it is no part of it."""
        if self.is_blank(place):
            return np.zeros((TILE_PX, TILE_PX), self.dtype)
        self._file.seek(self._slots[place] * self._tile_bytes)
        content = bytearray(self._file.read(self._tile_bytes))
        return np.frombuffer(content, self.dtype).reshape(TILE_PX, TILE_PX)

    def _write(self, place: Place, tile_HW: Pixels) -> None:
        slot = self._slots.setdefault(place, len(self._slots))
        self._file.seek(slot * self._tile_bytes)
        self._file.write(tile_HW.astype(self.dtype, copy=False).tobytes())

    @property
    def _tile_bytes(self) -> int:
        return TILE_PX * TILE_PX * self.dtype.itemsize


def nearest(pixels: Pixels) -> Pixels:
    """Every second pixel of every second row: for ids, which have no mean."""
    return pixels[::2, ::2]


def mean(pixels: Pixels) -> Pixels:
    """Each pixel the mean of four."""
    height, width = (side // 2 for side in pixels.shape)
    blocks = pixels.reshape(height, 2, width, 2)
    means: Pixels = blocks.mean(axis=(1, 3), dtype=np.float32).round()
    return means


def _sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height of all levels, the finest first."""
    sizes = [size]
    while max(sizes[-1]) > LARGEST_PX and min(sizes[-1]) > 1:
        width, height = sizes[-1]
        sizes.append((width // 2, height // 2))
    return sizes
