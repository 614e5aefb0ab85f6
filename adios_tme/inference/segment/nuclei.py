"""From the masks of blocks to nuclei, each found once.

Shape legend: H x W pixels of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adios_tme.inference.clean import USUAL_SCALE, Cleaning
from adios_tme.inference.geojson import Rings, rings_of
from adios_tme.inference.nuclei import split_nuclei
from adios_tme.inference.segment.blocks import Block
from adios_tme.inference.segment.view import View, is_tissue


class Nucleus(NamedTuple):
    """One nucleus, in the pixels that are written."""

    x: float
    """Of the centre of mass, as y is."""
    y: float
    rings: Rings
    area_px: float
    """In pixels that are written."""
    area_um2: float | None
    mask_mean: float
    """Of the mask over the nucleus, 0 to 1."""
    mask: NDArray[np.bool_]
    """Its pixels in the view (H, W)."""
    corner: tuple[int, int]
    """Left and upper edge of these, in pixels of the view."""


Take = Callable[[Block, list[Nucleus]], None]


@dataclass(frozen=True)
class Chosen:
    """What makes a pixel nucleus."""

    channel: int
    """Number of the mask, from 0 on."""
    threshold: float


def cleaning_of(view: View) -> Cleaning:
    """How masks of a view are cleaned; as at the usual scale where nobody knows it."""
    return Cleaning(view.microns_per_pixel or USUAL_SCALE)


def nuclei_by_block(
    blocks: Iterable[Block], view: View, chosen: Chosen, take: Take | None = None
) -> Iterator[list[Nucleus]]:
    """The nuclei of each block in turn, found in a thread while the next block is drawn.

    Args:
        blocks: Two of them are in memory at a time.
        view: To which they belong.
        chosen: The mask of nuclei.
        take: Given each block with its nuclei, in the same thread.
    """
    with ThreadPoolExecutor(1, "nuclei") as thread:
        before: Future[list[Nucleus]] | None = None
        for block in blocks:
            found = thread.submit(_found_in, block, view, chosen, take)
            del block  # the thread alone has it, and lets it go
            if before is not None:
                yield before.result()
            before = found
        if before is not None:
            yield before.result()


def _found_in(block: Block, view: View, chosen: Chosen, take: Take | None) -> list[Nucleus]:
    found = list(nuclei_of(block, view, chosen))
    if take is not None:
        take(block, found)
    return found


def nuclei_of(block: Block, view: View, chosen: Chosen) -> Iterator[Nucleus]:
    """The nuclei of a block whose centres lie in its core and on tissue.

    A nucleus on the border of two cores is seen by both, alike, and kept by the one that holds its
    centre.
    """
    cleaning = cleaning_of(view)
    soft_HW = block.masks[chosen.channel]
    labels_HW = split_nuclei(cleaning.above(chosen.threshold, cleaning.smooth(soft_HW)))
    left, top = block.box.left, block.box.top
    pixel_area = view.zoom[0] * view.zoom[1]
    for number, place in enumerate(ndimage.find_objects(labels_HW), start=1):
        if place is None:
            continue
        mask_HW = labels_HW[place] == number
        rows, columns = np.nonzero(mask_HW)
        corner = np.array([place[1].start + left, place[0].start + top])
        x, y = np.array([columns.mean(), rows.mean()]) + corner + 0.5
        is_own = block.core.left <= x < block.core.right and block.core.top <= y < block.core.bottom
        if not is_own or not is_tissue(view, x, y):
            continue
        rings = [(ring + corner) * view.zoom + view.origin for ring in rings_of(mask_HW)]
        um2 = None if view.microns_per_pixel is None else len(rows) * view.microns_per_pixel**2
        yield Nucleus(
            x * view.zoom[0] + view.origin[0],
            y * view.zoom[1] + view.origin[1],
            rings,
            len(rows) * pixel_area,
            um2,
            float(soft_HW[place][mask_HW].mean()),
            mask_HW,
            (int(corner[0]), int(corner[1])),
        )
