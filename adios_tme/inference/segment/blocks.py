"""Masks of a view of any size, block by block, the same wherever blocks overlap.

Windows lie on one grid over the whole view, half a window apart. A block is a core with a margin
around it; half a window inside the margin, its masks are those of its neighbours to the last bit.

Shape legend: N masks, H x W pixels at the model's scale, 3 channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.colour import Pixels
from adios_tme.inference.segment.view import Box, View, share_of_tissue
from adios_tme.inference.sliding_window import Predict

#: Side of a core in pixels, or in windows if that is more. A larger one has less margin for its
#: area, and takes more memory.
CORE_PX, CORE_WINDOWS = 2048, 8
#: How far an object may reach from its core and still be seen whole, in microns, or in pixels where
#: nobody knows the scale.
REACH_UM, REACH_PX = 25.0, 50


class Grid(NamedTuple):
    """Sizes of windows and blocks in pixels; core and margin are whole steps."""

    step: int
    """From one window to the next: half of one."""
    core: int
    margin: int

    def with_core(self, core: int) -> Grid:
        """The same windows, in blocks of another size."""
        return self._replace(core=_up(core, self.step))

    @classmethod
    def of(cls, side: int, microns_per_pixel: float | None) -> Grid:
        """The grid of a model.

        Args:
            side: Of its images in pixels.
            microns_per_pixel: At which it looks, if that is known.
        """
        step = max(1, side // 2)
        reach = REACH_PX if microns_per_pixel is None else REACH_UM / microns_per_pixel
        core = max(CORE_PX, CORE_WINDOWS * side)
        return cls(step, _up(core, step), step + _up(int(reach) + 1, step))


class Block(NamedTuple):
    """Masks of a core with its margin."""

    core: Box
    """In pixels of the view."""
    box: Box
    """Core and margin, as far as they lie inside the view."""
    pixels: Pixels
    """Of the box (H, W, 3)."""
    masks: NDArray[np.float32]
    """Of the box (N, H, W)."""


def cores_of(view: View, grid: Grid) -> list[Box]:
    """The cores that have tissue, row by row, no larger than it takes; none overlap."""
    width, height = view.size
    cores = [
        Box(left, top, left + grid.core, top + grid.core).within(view.size)
        for top in range(0, height, grid.core)
        for left in range(0, width, grid.core)
    ]
    shrunk = (_around_tissue(view, core, grid.step) for core in cores)
    return [core for core in shrunk if core is not None]


def blocks_of(view: View, cores: list[Box], grid: Grid, predict: Predict) -> Iterator[Block]:
    """Masks of some cores; none is kept here once the next one is asked for.

    Raises:
        CorruptPatchError: If pixels cannot be read.
    """
    for core in cores:
        yield _block_of(view, core, grid, predict)


def _block_of(view: View, core: Box, grid: Grid, predict: Predict) -> Block:
    shown = _shown(core, view.size, grid)
    box = shown.within(view.size)
    pixels = view.read(box)
    padding = (
        (box.top - shown.top, shown.bottom - box.bottom),
        (box.left - shown.left, shown.right - box.right),
        (0, 0),
    )
    masks = predict(np.pad(pixels, padding, mode="symmetric"))
    top, left = padding[0][0], padding[1][0]
    height, width = pixels.shape[:2]
    return Block(core, box, pixels, masks[:, top : top + height, left : left + width])


def _around_tissue(view: View, core: Box, step: int) -> Box | None:
    """What of a core holds all its tissue, in whole steps; None: it has none."""
    columns = range(core.left, core.right, step)
    rows = range(core.top, core.bottom, step)
    lefts = [x for x in columns if _has_tissue(view, core._replace(left=x, right=x + step))]
    tops = [y for y in rows if _has_tissue(view, core._replace(top=y, bottom=y + step))]
    if not lefts or not tops:
        return None
    return Box(lefts[0], tops[0], lefts[-1] + step, tops[-1] + step).within(view.size)


def _has_tissue(view: View, box: Box) -> bool:
    return share_of_tissue(view, box) > 0


def _shown(core: Box, size: tuple[int, int], grid: Grid) -> Box:
    """What the model is shown of a core: no window that has nothing of the view."""
    first, last = -grid.step, [_up(length, grid.step) + grid.step for length in size]
    return Box(
        max(first, core.left - grid.margin),
        max(first, core.top - grid.margin),
        min(last[0], _up(core.right, grid.step) + grid.margin),
        min(last[1], _up(core.bottom, grid.step) + grid.margin),
    )


def _up(length: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-length // step) * step
