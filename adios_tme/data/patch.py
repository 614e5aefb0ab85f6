"""What an index says of one patch: its archive, folder or slide, and where it lies in there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from adios_tme.data.members import Kind, Member
from adios_tme.data.names import coordinates, slide_of
from adios_tme.data.slides.tiles import place_of, tile_name, tile_of


class ArchiveEntry(NamedTuple):
    """An archive as it was when it was indexed."""

    full_path: str
    size: int
    mtime: int
    """In nanoseconds."""
    kind: Kind = Kind.ZIP
    root: str = ""
    """Of the index; slides are named by their place below it."""
    name_pattern: str | None = None
    """How the names of its patches are meant; see `adios_tme.data.names`."""

    @property
    def path(self) -> Path:
        """Where it lies; made when asked for, since it costs more than the rest of a look-up."""
        return Path(self.full_path)

    @property
    def slide(self) -> str:
        """The slide whose patches it holds: its path below the root, without a suffix."""
        path = self.path if self.kind == Kind.FOLDER else self.path.with_suffix("")
        if path == Path(self.root):
            return path.name
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def matches(self, stat: os.stat_result) -> bool:
        """Whether a file is still what was indexed."""
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime)


class Patch(NamedTuple):
    """Where a patch lies, and what its name says.

    `name`, `slide`, `x` and `y` are what most readers want; `x` and `y` are None where the name has
    no coordinates.
    """

    archive: ArchiveEntry
    member: Member

    @property
    def slide(self) -> str:
        """The slide, by where the patch lies and what its name states; see `slide_of`."""
        if self.archive.kind == Kind.SLIDE:
            return self.archive.slide
        return slide_of(self.archive.slide, self.member.name, self.archive.name_pattern)

    @property
    def name(self) -> str:
        """The name of its file, with the folders inside its archive; of a tile one made up."""
        return self.member.name

    @property
    def x(self) -> int | None:
        """First of the `coordinates`; None where the name has none."""
        place = self.coordinates
        return None if place is None else place[0]

    @property
    def y(self) -> int | None:
        """Second of the `coordinates`; None where the name has none."""
        place = self.coordinates
        return None if place is None else place[1]

    @property
    def coordinates(self) -> tuple[int, int] | None:
        """X and y in pixels, where the name has them; of a tile in level 0 of its slide."""
        if self.archive.kind == Kind.SLIDE:
            return place_of(self.member)
        return coordinates(self.member.name, self.archive.name_pattern)


def with_tile_name(archive: ArchiveEntry, member: Member, mpp: float) -> Member:
    """A member with its name, which of a tile is worked out; others have their own.

    Args:
        archive: That holds it.
        member: As a row of the index, or a directory, has it.
        mpp: Microns per pixel of tiles.
    """
    if archive.kind != Kind.SLIDE:
        return member
    tile = tile_of(member)
    name = tile_name(archive.path.stem, tile.size_px, tile.x, tile.y, mpp)
    return member._replace(name=name)


def unique_names(slides: Sequence[ArchiveEntry]) -> list[str]:
    """Relative paths that tell slides apart: their names, with the suffix where two have one."""
    names = [slide.slide.lstrip("/") for slide in slides]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name}{slide.path.suffix}"
        for name, slide in zip(names, slides, strict=True)
    ]
