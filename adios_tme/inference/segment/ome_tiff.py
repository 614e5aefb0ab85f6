"""Masks or labels of a view as an OME-TIFF: a pyramid whose levels are SubIFDs, in microns.

Shape legend: N masks, H x W pixels at the model's scale.
"""

from __future__ import annotations

import tempfile
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from adios_tme.config.commands.segment import OmeContent
from adios_tme.files import replacing
from adios_tme.inference.segment.blocks import Block
from adios_tme.inference.segment.nuclei import Chosen, Nucleus
from adios_tme.inference.segment.tile_store import TILE_PX, Place, TileStore, mean, nearest
from adios_tme.inference.segment.view import View
from adios_tme.version import __version__

SUFFIX = ".ome.tiff"
_PIXEL_TYPES: dict[OmeContent, type[np.generic]] = {"masks": np.uint8, "labels": np.uint32}


@contextmanager
def ome_tiff(
    path: Path, content: OmeContent, view: View, chosen: Chosen, num_masks: int
) -> Iterator[OmeTiff]:
    """Write an OME-TIFF of a view that appears, whole, once the block ends without an error.

    Until then its tiles lie in a file without a name in the same folder, which nothing outlives.

    Raises:
        OSError: If it cannot be written.
    """
    num_channels = num_masks if content == "masks" else 1
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        tiles = TileStore(spool, view.size, num_channels, _PIXEL_TYPES[content])
        picture = OmeTiff(tiles, content, view, chosen)
        yield picture
        with replacing(path) as partial:
            picture.write(partial, path.name)


class OmeTiff:
    """What is collected of a view.

    Args:
        tiles: Where to.
        content: Soft masks times 255, or each nucleus by its number.
        view: The slide or image.
        chosen: The mask of nuclei.
    """

    def __init__(self, tiles: TileStore, content: OmeContent, view: View, chosen: Chosen) -> None:
        self._tiles, self._content = tiles, content
        self._view, self._chosen = view, chosen
        self._num_nuclei = 0

    def add(self, block: Block, nuclei: Sequence[Nucleus]) -> None:
        """Take in a block, and the nuclei that it owns, in their order."""
        if self._content == "masks":
            self._add_masks(block)
        else:
            self._add_labels(block, nuclei)

    def _add_masks(self, block: Block) -> None:
        core, box = block.core, block.box
        rows = slice(core.top - box.top, core.bottom - box.top)
        columns = slice(core.left - box.left, core.right - box.left)
        for channel, mask_HW in enumerate(block.masks[:, rows, columns]):
            levels_HW = (mask_HW * 255).round().astype(np.uint8)
            self._tiles.paint(channel, (core.left, core.top), levels_HW)

    def _add_labels(self, block: Block, nuclei: Sequence[Nucleus]) -> None:
        box = block.box
        labels_HW = np.zeros((box.bottom - box.top, box.right - box.left), np.uint32)
        for number, nucleus in enumerate(nuclei, start=self._num_nuclei + 1):
            left, top = nucleus.corner[0] - box.left, nucleus.corner[1] - box.top
            height, width = nucleus.mask.shape
            labels_HW[top : top + height, left : left + width][nucleus.mask] = number
        self._num_nuclei += len(nuclei)
        self._tiles.paint(0, (box.left, box.top), labels_HW)

    def write(self, path: Path, name: str) -> None:
        """Write the file, level by level.

        Args:
            path: Where to.
            name: Of the file as it will be called.

        Raises:
            OSError: If it cannot be written.
        """
        tiles = self._tiles
        tiles.fill_levels(mean if self._content == "masks" else nearest)
        with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
            for level, (width, height) in enumerate(tiles.sizes):
                is_first = level == 0
                file.write(
                    self._packed(level),
                    shape=(tiles.num_channels, height, width),
                    dtype=tiles.dtype,
                    tile=(TILE_PX, TILE_PX),
                    compression="zlib",
                    photometric="minisblack",
                    subifds=len(tiles.sizes) - 1 if is_first else None,
                    subfiletype=int(not is_first),
                    metadata=self._metadata(name) if is_first else None,
                    software=f"adios_tme {__version__}",
                    **self._resolution(level),
                )

    def _packed(self, level: int) -> Iterator[bytes]:
        for place in self._tiles.places(level):
            yield self._blank if self._tiles.is_blank(place) else self._pack(place)

    def _pack(self, place: Place) -> bytes:
        return zlib.compress(self._tiles.tile(place).tobytes())

    @cached_property
    def _blank(self) -> bytes:
        return zlib.compress(bytes(TILE_PX * TILE_PX * self._tiles.dtype.itemsize))

    def _resolution(self, level: int) -> dict[str, Any]:
        """Pixels to a centimetre, where the scale is known."""
        if self._view.pixel_um is None:
            return {}
        finest, size = self._tiles.sizes[0], self._tiles.sizes[level]
        per_cm = [
            1e4 / um * there / here
            for um, here, there in zip(self._view.pixel_um, finest, size, strict=True)
        ]
        return {"resolution": tuple(per_cm), "resolutionunit": "CENTIMETER"}

    def _metadata(self, name: str) -> dict[str, Any]:
        """What the OME-XML says; equal files are equal bytes."""
        stated: dict[str, Any] = {
            "axes": "CYX",
            "Name": name.removesuffix(SUFFIX),
            "Creator": f"adios_tme {__version__}",
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"adios_tme/{name}")),
            "Channel": {"Name": self._channel_names()},
        }
        if self._view.pixel_um is not None:
            for axis, um in zip("XY", self._view.pixel_um, strict=True):
                stated |= {f"PhysicalSize{axis}": um, f"PhysicalSize{axis}Unit": "µm"}
        return stated

    def _channel_names(self) -> list[str]:
        if self._content == "labels":
            return ["Nuclei"]
        names = [f"Mask {number}" for number in range(1, self._tiles.num_channels + 1)]
        names[self._chosen.channel] += " (nuclei)"
        return names
