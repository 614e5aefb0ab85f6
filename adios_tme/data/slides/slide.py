"""An open slide, read at any scale from its coarsest fitting level; and those a worker has open.

Shape legend: H x W pixels, 3 channels.
"""

from __future__ import annotations

import io
import itertools
import logging
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from adios_tme.data.colour import Pixels
from adios_tme.data.corrupt import ChangedSinceIndexedError, CorruptPatchError
from adios_tme.data.decode import MAX_PIXELS
from adios_tme.data.open_files import NO_HANDLES_LEFT, OpenFiles
from adios_tme.data.patch import ArchiveEntry
from adios_tme.data.slides.reader import OpenReader, OpenSlideReader, SlideFacts
from adios_tme.data.slides.tiles import Tile

logger = logging.getLogger(__name__)

#: Slides that a process keeps open, unless told otherwise.
OPEN_SLIDES = 32
#: How much a level may be coarser than what is asked for: levels are rounded to whole pixels.
LEVEL_TOLERANCE = 1.005
#: Pixels that are read at once where an overview is made from a fine level.
_BAND_PIXELS = 1 << 24
#: Pixels of a level that an overview is made from at most; more take minutes.
MAX_OVERVIEW_PIXELS = 1 << 33


class Slide:
    """A slide of this process.

    Args:
        path: Its file.
        open_reader: How it is opened.

    Raises:
        ConfigError: If the reader's package is missing.
        CorruptPatchError: If it cannot be opened, or states what no slide has.
    """

    def __init__(self, path: Path, open_reader: OpenReader = OpenSlideReader) -> None:
        self.path = path
        self._open = partial(open_reader, path)
        self._reader = self._open()
        self.facts: SlideFacts = self._reader.facts()
        self.levels_failed: set[int] = set()
        """Levels in place of which a finer one was read."""

    def level_for(self, downsample: float) -> int:
        """The coarsest level that is not coarser than asked for."""
        scales = [level.downsample for level in self.facts.levels]
        fine = [
            number for number, scale in enumerate(scales) if scale <= downsample * LEVEL_TOLERANCE
        ]
        return max(fine, key=scales.__getitem__, default=0)

    def read(
        self,
        place: tuple[int, int],
        extent: tuple[int, int],
        size: tuple[int, int],
        level: int | None = None,
        *,
        icc: bool = False,
    ) -> Pixels:
        """A part of the slide as RGB (H, W, 3), white where there is nothing.

        Where a level cannot be read, a finer one is, which gives the same but for the filter.

        Args:
            place: X and y of the upper left corner, in pixels of level 0.
            extent: Width and height, in pixels of level 0.
            size: Width and height to which it is resized, antialiased.
            level: Where reading begins; None: the coarsest that is fine enough.
            icc: Convert to sRGB if the slide has a colour profile.

        Raises:
            CorruptPatchError: If no level gives it.
        """
        if level is None:
            level = self.level_for(min(extent[0] / size[0], extent[1] / size[1]))
        for number in range(level, -1, -1):
            try:
                region = self._region(place, extent, number)
            except CorruptPatchError as error:
                self._reader = self._open()  # of no use after an error
                if number == 0:
                    raise
                self._note(number, error)
                continue
            image = _on_white(region)
            if icc and self.facts.profile is not None:
                image = _to_srgb(image.convert("RGB"), self.facts.profile)
            return _pixels(image if image.size == size else _resized(image, size))
        raise CorruptPatchError(f"has no level {level}")

    def overview(self, downsample: float) -> Pixels:
        """The whole slide at a coarse scale, read in bands so that memory stays small.

        Args:
            downsample: Pixels of level 0 to one of the overview.

        Raises:
            CorruptPatchError: If no level gives it, or all are far too fine.
        """
        width, height = self.facts.size
        across, down = (max(1, round(side / downsample)) for side in (width, height))
        level = self.facts.levels[self.level_for(downsample)]
        if level.width * level.height > MAX_OVERVIEW_PIXELS:
            raise CorruptPatchError(
                f"has no level coarser than {level.width} x {level.height} px, which takes too "
                f"long to search for tissue"
            )
        bands = -(-level.width * level.height // _BAND_PIXELS)
        edges = np.unique(np.linspace(0, down, bands + 1).round().astype(int)).tolist()
        overview = np.empty((down, across, 3), np.uint8)
        for top, bottom in itertools.pairwise(edges):
            start, stop = (round(edge * height / down) for edge in (top, bottom))
            overview[top:bottom] = self.read(
                (0, start), (width, max(1, stop - start)), (across, bottom - top)
            )
        return overview

    def tile(self, tile: Tile) -> Pixels:
        """The pixels of a tile (H, W, 3).

        Raises:
            CorruptPatchError: If it lies outside the slide, or no level gives it.
        """
        width, height = self.facts.size
        if not (0 <= tile.x <= width - tile.side and 0 <= tile.y <= height - tile.side):
            raise CorruptPatchError(
                f"lies outside the slide of {width} x {height} px "
                f"(x {tile.x}, y {tile.y}, {tile.side} px of level 0)"
            )
        if tile.level >= len(self.facts.levels):
            raise CorruptPatchError(f"has no level {tile.level}")
        if tile.side < 1 or not 0 < tile.size_px**2 <= MAX_PIXELS:
            raise CorruptPatchError(f"a tile of {tile.size_px} px is empty or too large")
        extent, size = (tile.side, tile.side), (tile.size_px, tile.size_px)
        return self.read((tile.x, tile.y), extent, size, tile.level, icc=tile.icc)

    def _region(self, place: tuple[int, int], extent: tuple[int, int], number: int) -> Image.Image:
        scale = self.facts.levels[number].downsample
        width, height = (max(1, round(side / scale)) for side in extent)
        if width * height > MAX_PIXELS:
            raise CorruptPatchError(f"takes {width} x {height} px of level {number} for one tile")
        return self._reader.region(*place, number, (width, height))

    def _note(self, number: int, error: CorruptPatchError) -> None:
        if number not in self.levels_failed:
            self.levels_failed.add(number)
            logger.warning("%s: %s; a finer level is read in its place.", self.path, error)


class OpenSlides(OpenFiles[Slide]):
    """The slides that a process has open."""

    def __init__(self, max_open: int = OPEN_SLIDES) -> None:
        super().__init__(max_open)

    def read(self, archive: ArchiveEntry, tile: Tile) -> Pixels:
        """The pixels of a tile (H, W, 3).

        Raises:
            ConfigError: If the reader's package is missing.
            CorruptPatchError: If it cannot be read, or the slide is not what was indexed.
        """
        try:
            unchanged = archive.matches(archive.path.stat())
        except (OSError, ValueError) as error:
            self.forget(archive)
            raise CorruptPatchError(f"cannot be opened or read ({error})") from error
        if not unchanged:
            self.forget(archive)
            raise ChangedSinceIndexedError("slide has changed since it was indexed")
        return self.handle(archive).tile(tile)

    def _open(self, archive: ArchiveEntry) -> Slide:
        try:
            return Slide(archive.path)
        except CorruptPatchError as error:
            cause = error.__cause__
            taken = isinstance(cause, OSError) and cause.errno in NO_HANDLES_LEFT
            if not (taken and self._handles):
                raise
            self.close()  # the open ones have taken the file descriptors; begin again
            return Slide(archive.path)

    def _close(self, handle: Slide) -> None:
        """Its reader closes it once nobody has it."""


def _on_white(region: Image.Image) -> Image.Image:
    """An image over white, as glass looks in the microscope; RGBA as it is, if it is opaque."""
    if region.getchannel("A").getextrema()[0] == 255:
        return region
    white = Image.new("RGBA", region.size, "white")
    white.alpha_composite(region)
    return white.convert("RGB")


def _pixels(image: Image.Image) -> Pixels:
    """RGB (H, W, 3), read-only: another copy costs a tenth of the time that reading takes."""
    width, height = image.size
    return np.frombuffer(image.tobytes("raw", "RGB"), np.uint8).reshape(height, width, 3)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.convert("RGB").resize(
        size, Image.Resampling.BICUBIC
    )  # Pillow's filters are antialiased


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    converted = ImageCms.applyTransform(image, _transform(profile))
    return image if converted is None else converted


@cache
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise CorruptPatchError(f"its colour profile cannot be used ({error})") from error
