"""What a reader of whole slides gives, and the first one: OpenSlide.

A reader is opened in the process that uses it, and never shared over a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol

from PIL import Image

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.errors import ConfigError

#: Earlier versions write out of bounds in crafted files.
LEAST_OPENSLIDE = (4, 0, 1)
#: Decoded tiles of all slides that a process keeps, in bytes.
CACHE_BYTES = 64 << 20
#: Longest side of a slide in pixels; the largest scans have a third of it.
MAX_SIDE = 1 << 20
#: Largest tile inside a slide's file, which is decoded as a whole.
MAX_STORED_TILE = 1 << 26


class Level(NamedTuple):
    """One resolution of a slide."""

    width: int
    height: int
    downsample: float
    """Pixels of level 0 to one of its own."""


class SlideFacts(NamedTuple):
    """What a slide says of itself."""

    levels: tuple[Level, ...]
    """Finest first."""
    properties: Mapping[str, str]
    """By the names that OpenSlide gives them."""
    profile: bytes | None
    """ICC profile of its colours."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of level 0."""
        return self.levels[0].width, self.levels[0].height


class SlideReader(Protocol):
    """An open slide; it is closed when nobody holds it any more."""

    def facts(self) -> SlideFacts:
        """Sizes, properties, colour profile.

        Raises:
            CorruptPatchError: If they cannot be those of a slide.
        """

    def region(self, x: int, y: int, level: int, size: tuple[int, int]) -> Image.Image:
        """Pixels of one level, transparent where there is nothing.

        Args:
            x: Left edge in pixels of level 0; y is the upper one.
            y: See x.
            level: Number of the level.
            size: Width and height in pixels of that level.

        Returns:
            An RGBA image.

        Raises:
            CorruptPatchError: If they cannot be read; the reader is of no use after that.
        """


OpenReader = Callable[[Path], SlideReader]


class OpenSlideReader:
    """A slide read by OpenSlide.

    Args:
        path: Its file; of a slide of several files, the one that OpenSlide opens.

    Raises:
        ConfigError: If OpenSlide is missing or too old.
        CorruptPatchError: If the file cannot be opened as a slide.
    """

    def __init__(self, path: Path) -> None:
        openslide = load_openslide()
        try:
            path.open("rb").close()  # OpenSlide takes a file without access for no slide
            self._slide = openslide.OpenSlide(path)
            self._slide.set_cache(_tile_cache(os.getpid()))
        except OSError as error:
            raise CorruptPatchError(f"cannot be opened or read ({error.strerror})") from error
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise CorruptPatchError("is no slide that OpenSlide reads, or is cut short") from error
        except openslide.OpenSlideError as error:
            raise CorruptPatchError(f"cannot be opened as a slide ({error})") from error
        self._errors: tuple[type[Exception], ...] = (openslide.OpenSlideError, OSError)

    def facts(self) -> SlideFacts:
        """See `SlideReader.facts`."""
        try:
            sizes, scales = self._slide.level_dimensions, self._slide.level_downsamples
            levels = tuple(
                Level(size[0], size[1], scale) for size, scale in zip(sizes, scales, strict=True)
            )
            profile = self._slide.color_profile
            facts = SlideFacts(
                levels, dict(self._slide.properties), profile.tobytes() if profile else None
            )
        except self._errors as error:  # OSError: Pillow refuses some profiles
            raise CorruptPatchError(f"cannot be opened as a slide ({error})") from error
        _check_sizes(facts)
        return facts

    def region(self, x: int, y: int, level: int, size: tuple[int, int]) -> Image.Image:
        """See `SlideReader.region`."""
        try:
            region: Image.Image = self._slide.read_region((x, y), level, size)
            return region
        except self._errors as error:
            raise CorruptPatchError(f"level {level} cannot be read ({error})") from error


def is_slide(path: Path) -> bool:
    """Whether OpenSlide knows a file as a slide; damaged ones it may know by their first bytes.

    Raises:
        ConfigError: If OpenSlide is missing or too old.
    """
    openslide = load_openslide()
    try:
        return openslide.OpenSlide.detect_format(path) is not None
    except (openslide.OpenSlideError, OSError):
        return False


@cache
def load_openslide() -> ModuleType:
    """OpenSlide's module, imported when it is first needed.

    Raises:
        ConfigError: If it is missing, or its library is too old.
    """
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the library itself is missing
        raise ConfigError(
            "slides: reading whole slides needs OpenSlide, which cannot be imported. "
            "Install it with pip install 'adios-tme[slides]'."
        ) from error
    version = str(openslide.__library_version__)
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
    if numbers < LEAST_OPENSLIDE:
        raise ConfigError(
            f"slides: OpenSlide {version} is too old to read files from strangers safely. "
            f"Install a newer one with pip install 'adios-tme[slides]'."
        )
    return openslide


@cache
def _tile_cache(process: int) -> object:
    """One cache for all slides of a process, so that many open ones cost no more memory."""
    return load_openslide().OpenSlideCache(CACHE_BYTES)


def _check_sizes(facts: SlideFacts) -> None:
    """Raise CorruptPatchError for sizes that no scanner writes, before memory is asked for."""
    width, height = facts.size
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise CorruptPatchError(
            f"states {width} x {height} px, more than {MAX_SIDE} a side or none"
        )
    for level in range(len(facts.levels)):
        place = f"openslide.level[{level}].tile-"
        sides = [facts.properties.get(place + side, "0") for side in ("width", "height")]
        if all(map(str.isdecimal, sides)) and int(sides[0]) * int(sides[1]) > MAX_STORED_TILE:
            raise CorruptPatchError(
                f"states tiles of {sides[0]} x {sides[1]} px in its file, "
                f"more than {MAX_STORED_TILE} pixels"
            )
