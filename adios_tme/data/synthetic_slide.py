"""Generated whole slides: a pyramid of rendered tissue on glass, written as it is rendered.

Shape legend: H x W pixels of a block of tissue, 3 channels.
"""

from __future__ import annotations

import csv
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from adios_tme.data.synthetic import render_tissue
from adios_tme.files import replacing, write_whole

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]

MPP = 0.25
#: Levels, each so many times as coarse as the one before.
NUM_LEVELS, LEVEL_STEP = 3, 4
#: Side of a block of tissue, and of the tiles inside the file.
BLOCK_PX, STORED_PX = 512, 256
#: Blocks that are rendered together, in half a gigabyte.
BATCH = 16
JPEG_QUALITY = 90
GLASS, GLASS_NOISE = 242.0, 1.2
#: Half axes of the tissue in widths and heights of the slide, and how many pixels its edge is soft.
TISSUE_AXES, EDGE_PX = (0.40, 0.34), 12.0
#: Share of tissue in a pixel under which nobody would see it.
LEAST_SHARE = 1e-3


class Nucleus(NamedTuple):
    """A nucleus of a slide, in pixels of level 0."""

    x: float
    """Of the centre of mass, as y is."""
    y: float
    area: int


def write_slide(
    path: Path, size_px: int, seed: int = 0, on_progress: Progress | None = None
) -> Path:
    """Write a slide of generated tissue as a tiled TIFF pyramid, in memory that does not grow.

    Tiles are JPEG where imagecodecs is installed, which makes the file a tenth as large.

    Args:
        path: The file; ``NAME_nuclei.csv`` beside it gets the true nuclei.
        size_px: Side in pixels of level 0, a multiple of 16, at 0.25 microns per pixel.
        seed: Equal seeds give equal slides.
        on_progress: Called with the rows of blocks rendered and their number.

    Returns:
        The table of nuclei: x and y of their centres and area, in pixels of level 0.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = path.with_name(f"{path.stem}_nuclei.csv")
    with tempfile.TemporaryFile() as spool, replacing(path) as partial:
        canvas, pack = _Canvas(size_px, seed, spool, on_progress), _packing()
        with tifffile.TiffWriter(partial, bigtiff=True) as file:
            for level in range(NUM_LEVELS):
                side = canvas.side(level)
                file.write(
                    map(pack.encode, canvas.stored_tiles(level)),
                    shape=(side, side, 3),
                    dtype=np.uint8,
                    tile=(STORED_PX, STORED_PX),
                    photometric=pack.photometric,
                    compression=pack.compression,
                    subfiletype=int(level > 0),
                    resolution=(10000 / MPP / LEVEL_STEP**level,) * 2,
                    resolutionunit="CENTIMETER",
                    metadata=None,
                    software="adios_tme",
                )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Nucleus._fields)
        writer.writerows((f"{x:.2f}", f"{y:.2f}", area) for x, y, area in canvas.nuclei)
        write_whole(table, text.getvalue())
    return table


class _Canvas:
    """Level 0, rendered row of blocks by row of blocks, and what coarser levels keep of it."""

    def __init__(
        self, size_px: int, seed: int, spool: IO[bytes], on_progress: Progress | None
    ) -> None:
        self.size_px = size_px
        self.nuclei: list[Nucleus] = []
        self._seed = seed
        self._on_progress = on_progress
        self._blocks = -(-size_px // BLOCK_PX)
        coarse = self._blocks * BLOCK_PX // LEVEL_STEP
        self._coarse = np.memmap(spool, np.uint8, "w+", shape=(coarse, coarse, 3))

    def side(self, level: int) -> int:
        """Width and height of a level in pixels."""
        return self.size_px // int(LEVEL_STEP**level)

    def stored_tiles(self, level: int) -> Iterator[Pixels]:
        """The tiles of a level's file, row by row; coarser ones once level 0 has been taken."""
        if level == 0:
            for row in range(self._blocks):
                yield from _tiles_of(self._strip(row), *self._num_tiles(0, row))
            return
        step = LEVEL_STEP ** (level - 1)
        for row, top in enumerate(range(0, self._coarse.shape[0], STORED_PX * step)):
            strip = _reduced(np.asarray(self._coarse[top : top + STORED_PX * step]), step)
            yield from _tiles_of(strip, *self._num_tiles(level, row))

    def _num_tiles(self, level: int, row: int) -> tuple[int, int]:
        """Tiles down and across that a strip fills, at the lower end of the slide fewer."""
        across = -(-self.side(level) // STORED_PX)
        height = BLOCK_PX // STORED_PX if level == 0 else 1
        return min(height, across - row * height), across

    def _strip(self, row: int) -> Pixels:
        """One row of blocks of level 0: tissue on glass, which alone is not rendered."""
        shape = (BLOCK_PX, self._blocks * BLOCK_PX, 1)
        rng = np.random.default_rng((self._seed, row))
        glass = GLASS + rng.normal(0, GLASS_NOISE, shape).astype(np.float32)
        strip: Pixels = glass.repeat(3, axis=2).round().clip(0, 255).astype(np.uint8)
        shares = {column: self._share_of_tissue(row, column) for column in range(self._blocks)}
        tissue = [column for column, share in shares.items() if share.max() > LEAST_SHARE]
        for start in range(0, len(tissue), BATCH):
            columns = tissue[start : start + BATCH]
            number = row * self._blocks + start
            rendered = render_tissue(len(columns), BLOCK_PX, self._seed * 1_000_003 + number)
            for column, image, labels in zip(columns, *rendered, strict=True):
                place = slice(column * BLOCK_PX, (column + 1) * BLOCK_PX)
                mixed = glass[:, place] * (1 - shares[column]) + image * shares[column]
                strip[:, place] = mixed.round().clip(0, 255)
                self._note_nuclei(np.where(shares[column][..., 0] > 0.5, labels, 0), row, column)
        if self._on_progress:
            self._on_progress(row + 1, self._blocks)
        coarse = BLOCK_PX // LEVEL_STEP
        self._coarse[row * coarse : (row + 1) * coarse] = _reduced(strip, LEVEL_STEP)
        return strip

    def _share_of_tissue(self, row: int, column: int) -> NDArray[np.float32]:
        """How much of each pixel (H, W, 1) is tissue: an ellipse with a soft edge."""
        steps = np.arange(BLOCK_PX, dtype=np.float32)
        half = self.size_px / 2
        x, y = (steps + place * BLOCK_PX - half for place in (column, row))
        axes = [share * self.size_px for share in TISSUE_AXES]
        radius = np.hypot(x[None, :] / axes[0], y[:, None] / axes[1])
        from_edge = (1 - radius) * min(axes) / EDGE_PX
        share: NDArray[np.float32] = 1 / (1 + np.exp(-from_edge.clip(-50, 50)))
        return share[..., None].astype(np.float32)

    def _note_nuclei(self, labels: NDArray[Any], row: int, column: int) -> None:
        y, x = np.nonzero(labels)
        ids = labels[y, x]
        areas = np.bincount(ids)
        sums = [np.bincount(ids, weights=place) for place in (x, y)]
        for number in np.flatnonzero(areas).tolist():
            centre = [total[number] / areas[number] for total in sums]
            self.nuclei.append(
                Nucleus(
                    centre[0] + column * BLOCK_PX + 0.5,
                    centre[1] + row * BLOCK_PX + 0.5,
                    int(areas[number]),
                )
            )


def _reduced(pixels: Pixels, step: int) -> Pixels:
    """Each pixel the mean of step x step."""
    height, width, _ = pixels.shape
    blocks = pixels.reshape(height // step, step, width // step, step, 3)
    means: Pixels = blocks.mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8)
    return means


def _tiles_of(strip: Pixels, down: int, across: int) -> Iterator[Pixels]:
    """Whole tiles of a strip, row by row; what it does not have is black, and never shown."""
    for row in range(down):
        for column in range(across):
            tile = np.zeros((STORED_PX, STORED_PX, 3), np.uint8)
            top, left = row * STORED_PX, column * STORED_PX
            part = strip[top : top + STORED_PX, left : left + STORED_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


class _Packing(NamedTuple):
    """How tiles are stored."""

    compression: Literal["jpeg", "zlib"]
    photometric: Literal["ycbcr", "rgb"]
    encode: Callable[[Pixels], bytes]


def _packing() -> _Packing:
    """JPEG, as scanners write, where tifffile can; it asks for imagecodecs even for whole tiles."""
    if find_spec("imagecodecs") is None:
        return _Packing("zlib", "rgb", lambda pixels: zlib.compress(pixels.tobytes(), 1))
    return _Packing("jpeg", "ycbcr", _jpeg)


def _jpeg(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=JPEG_QUALITY, subsampling=2)
    return stream.getvalue()
