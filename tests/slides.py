"""Whole slides small enough for tests: tiled TIFF pyramids that OpenSlide reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

#: Side of the tiles inside the files.
STORED_TILE = 128
GLASS = 244


def stained(height: int, width: int, seed: int = 0) -> Pixels:
    """Pixels (H, W, 3) in the colours of H&E, different everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 60, (height // 8 + 1, width // 8 + 1, 3))
    smooth = np.kron(coarse, np.ones((8, 8, 1), dtype=np.int64))[:height, :width]
    noise = rng.integers(0, 20, (height, width, 3))
    pixels: Pixels = (np.array([150, 60, 130]) + smooth + noise).astype(np.uint8)
    return pixels


def on_glass(height: int, width: int, tissue: tuple[slice, slice], seed: int = 0) -> Pixels:
    """A slide that is glass but for one rectangle of tissue."""
    pixels = np.full((height, width, 3), GLASS, np.uint8)
    pixels[tissue] = stained(height, width, seed)[tissue]
    return pixels


def halved(pixels: Pixels) -> Pixels:
    """Each pixel the mean of four."""
    height, width = (side // 2 for side in pixels.shape[:2])
    blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    means: Pixels = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return means


def make_slide(
    path: Path, pixels: Pixels, *, mpp: float | None = 0.25, num_levels: int = 1, **options: Any
) -> Path:
    """Write a slide whose levels are halved, without loss.

    Args:
        path: The file.
        pixels: Level 0 (H, W, 3).
        mpp: Microns per pixel that it states; None: nothing.
        num_levels: Levels, each half as wide as the one before.
        options: Of tifffile, in place of the ones here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "tile": (STORED_TILE, STORED_TILE),
        "compression": "zlib",
        "photometric": "rgb",
        "metadata": None,
    } | options
    if mpp is not None:
        settings |= {"resolution": (10000 / mpp, 10000 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for level in range(num_levels):
            file.write(pixels, subfiletype=int(level > 0), **settings)
            pixels = halved(pixels)
    return path
