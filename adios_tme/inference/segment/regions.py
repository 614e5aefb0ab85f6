"""The regions of the masks that are not nuclei, as annotations.

Shape legend: N masks, H x W pixels of a coarse map of a whole view.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from adios_tme.inference.geojson import feature_of, rings_of
from adios_tme.inference.segment.blocks import Block
from adios_tme.inference.segment.nuclei import Chosen
from adios_tme.inference.segment.view import View, is_tissue

#: Pixels of the view to one of the map.
COARSENESS = 8
#: Smaller regions are left out, in pixels of the map.
SMALLEST_PX = 16
#: Standard deviation of the Gaussian by which borders are smoothed, in pixels of the map.
SMOOTHING_PX = 2.0
#: Of masks in QuPath, in turn.
COLORS = ((0, 120, 200), (230, 160, 0), (0, 150, 60), (150, 80, 200), (120, 120, 120))
#: In the map: no block has been there.
_NOWHERE = 255


class RegionMap:
    """Which mask is the highest, at a coarse scale, over a whole view.

    Args:
        view: The image.
        chosen: The mask of nuclei, which has no regions.
    """

    def __init__(self, view: View, chosen: Chosen) -> None:
        width, height = view.size
        self._view, self._chosen = view, chosen
        self._map_HW = np.full((-(-height // COARSENESS), -(-width // COARSENESS)), _NOWHERE, "u1")
        self._num_masks = 0

    def add(self, block: Block) -> None:
        """Take in the core of a block."""
        core, box = block.core, block.box
        self._num_masks = len(block.masks)
        rows = slice(core.top - box.top, core.bottom - box.top)
        columns = slice(core.left - box.left, core.right - box.left)
        masks_NHW = block.masks[:, rows, columns]
        height, width = (-(-side // COARSENESS) * COARSENESS for side in masks_NHW.shape[1:])
        padding = [(0, 0), (0, height - masks_NHW.shape[1]), (0, width - masks_NHW.shape[2])]
        cells = np.pad(masks_NHW, padding, mode="edge").reshape(
            len(masks_NHW), height // COARSENESS, COARSENESS, width // COARSENESS, COARSENESS
        )
        highest_HW = cells.mean(axis=(2, 4)).argmax(axis=0)
        top, left = core.top // COARSENESS, core.left // COARSENESS
        there_HW = self._map_HW[top : top + highest_HW.shape[0], left : left + highest_HW.shape[1]]
        there_HW[:] = highest_HW[: there_HW.shape[0], : there_HW.shape[1]]

    def features(self, identity: str) -> Iterator[dict[str, Any]]:
        """Connected regions of each other mask, with ids that follow from the input's name."""
        map_HW = self._smooth()
        zoom = np.array(self._view.zoom) * COARSENESS
        for channel in range(self._num_masks):
            if channel == self._chosen.channel:
                continue
            parts_HW, _ = ndimage.label(map_HW == channel)
            for number, place in enumerate(ndimage.find_objects(parts_HW), start=1):
                mask_HW = parts_HW[place] == number
                if mask_HW.sum() < SMALLEST_PX:
                    continue
                corner = np.array([place[1].start, place[0].start])
                rings = [(ring + corner) * zoom + self._view.origin for ring in rings_of(mask_HW)]
                name, color = f"Mask {channel + 1}", COLORS[channel % len(COLORS)]
                own = f"{identity}/{self._view.origin}/{name}/{number}"
                yield feature_of(rings, "annotation", name, color, {}, own)

    def _smooth(self) -> NDArray[np.uint8]:
        """The map, each pixel as most around it are, and nothing where there is no tissue."""
        highest_HW = np.full(self._map_HW.shape, -1, np.float32)
        smooth_HW = np.zeros(self._map_HW.shape, np.uint8)
        for channel in range(self._num_masks):
            is_there_HW = (self._map_HW == channel).astype(np.float32)
            share_HW = ndimage.gaussian_filter(is_there_HW, SMOOTHING_PX)
            smooth_HW[share_HW > highest_HW] = channel
            np.maximum(highest_HW, share_HW, out=highest_HW)
        y, x = ((np.arange(side) + 0.5) * COARSENESS for side in self._map_HW.shape)
        is_known = (self._map_HW != _NOWHERE) & is_tissue(self._view, x[None], y[:, None])
        smooth_HW[~is_known] = _NOWHERE
        return smooth_HW
