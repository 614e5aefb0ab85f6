"""Random patches side by side, so that one sees what will be trained on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from adios_tme.errors import DataError
from adios_tme.files import PNG_METADATA, check_suffix

SUFFIXES = (".png",)
TILE_PX = 160
GAP_PX = 4


def draw_contact_sheet(images: list[NDArray[np.uint8]], path: Path, tile_px: int = TILE_PX) -> None:
    """Write images (H, W, 3) as a grid, each as large as fits a square of some pixels.

    Raises:
        ConfigError: If the name does not end in .png.
        DataError: If there is no image.
        OSError: If the file cannot be written.
    """
    check_suffix(path, SUFFIXES)
    if not images:
        raise DataError(f"{path}: there is no readable patch to draw. Run index with --verify.")
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    for key, value in PNG_METADATA.items():
        info.add_text(key, value)
    contact_sheet(images, tile_px).save(path, pnginfo=info)


def contact_sheet(images: list[NDArray[np.uint8]], tile_px: int = TILE_PX) -> Image.Image:
    """The picture that `draw_contact_sheet` writes, of one patch (H, W, 3) or more."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    step = tile_px + GAP_PX
    sheet = Image.new("RGB", (columns * step + GAP_PX, rows * step + GAP_PX), "white")
    for number, pixels in enumerate(images):
        tile = Image.fromarray(pixels)
        tile.thumbnail((tile_px, tile_px), Image.Resampling.BICUBIC)
        corner = (number % columns * step + GAP_PX, number // columns * step + GAP_PX)
        sheet.paste(tile, corner)
    return sheet
