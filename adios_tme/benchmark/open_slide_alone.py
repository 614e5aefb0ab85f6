"""Tiles of slides by OpenSlide and Pillow alone, beside which ours are measured."""

from __future__ import annotations

from functools import cache
from typing import Any

from PIL import Image

from adios_tme.data.index import Patch
from adios_tme.data.slides.reader import CACHE_BYTES, load_openslide
from adios_tme.data.slides.tiles import tile_of


class OpenSlideAlone:
    """What ten lines do: slides stay open, a region is read from the level, and resized."""

    def __init__(self) -> None:
        self._cache = load_openslide().OpenSlideCache(CACHE_BYTES)
        self._open = cache(self._opened)

    def read(self, patch: Patch) -> Image.Image:
        """One tile."""
        tile, slide = tile_of(patch.member), self._open(patch.archive.full_path)
        side = round(tile.side / slide.level_downsamples[tile.level])
        region = slide.read_region((tile.x, tile.y), tile.level, (side, side)).convert("RGB")
        size = (tile.size_px, tile.size_px)
        image: Image.Image = region.resize(size, Image.Resampling.BICUBIC)
        return image

    def _opened(self, path: str) -> Any:
        slide = load_openslide().OpenSlide(path)
        slide.set_cache(self._cache)
        return slide
