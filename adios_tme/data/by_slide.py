"""Patches of an index slide by slide, and what their names state of the slide."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.index import DatasetIndex
from adios_tme.data.members import Kind, printable
from adios_tme.data.names import NameFacts, coordinates, names_state_slides, parse_name, slide_of
from adios_tme.data.patch import Patch
from adios_tme.data.slides.tiles import tile_of
from adios_tme.errors import DataError

#: Names of a slide that are read for its size and scale; coordinates are read of all.
NUM_NAMES_READ = 64
#: Names whose coordinates are looked for at a time.
NAMES_AT_A_TIME = 1 << 14


@dataclass(frozen=True)
class SlidePatches:
    """The patches of one slide."""

    name: str
    """Where it lies, as `adios_tme.data.names.slide_of` says."""
    spans: tuple[tuple[int, int], ...]
    """First row and end of each run of neighbours."""

    def __len__(self) -> int:
        return sum(end - first for first, end in self.spans)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the index, in its order."""
        runs = [np.arange(first, end, dtype=np.int64) for first, end in self.spans]
        return np.concatenate(runs)


def patches_by_slide(index: DatasetIndex) -> list[SlidePatches]:
    """All slides in the order of their first patch (reads names only where those state slides)."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for slide, first, end in _runs(index):
        own = spans.setdefault(slide, [])
        if own and own[-1][1] == first:
            own[-1] = (own[-1][0], end)
        else:
            own.append((first, end))
    return [SlidePatches(name, tuple(runs)) for name, runs in spans.items()]


def _runs(index: DatasetIndex) -> Iterator[tuple[str, int, int]]:
    """Neighbouring rows of one slide."""
    pattern = index.selection.name_pattern
    for number in range(index.num_archives):
        rows = index.archive_rows(number)
        if rows.start == rows.stop:
            continue
        archive = index.archive(number)
        place = archive.slide
        if archive.kind == Kind.SLIDE:
            yield place, rows.start, rows.stop
            continue
        # The names of an archive are of one kind, so that three of them stand for all.
        some = index.names(np.array([rows.start, (rows.start + rows.stop) // 2, rows.stop - 1]))
        if not names_state_slides(some, pattern) and not index.has_folders(number):
            yield slide_of(place, some[0], pattern), rows.start, rows.stop
            continue
        for row, name in enumerate(index.names(np.arange(rows.start, rows.stop)), rows.start):
            yield slide_of(place, name, pattern), row, row + 1


def facts_of(index: DatasetIndex, slide: SlidePatches) -> NameFacts:
    """What the names of a slide's patches agree on; its place is never one of it."""
    rows = slide.rows
    some = rows[np.unique(np.linspace(0, len(rows) - 1, NUM_NAMES_READ, dtype=int))]
    found = [_facts(index, patch) for patch in index.patches(some)]
    agreed = [values[0] if len(set(values)) == 1 else None for values in zip(*found, strict=True)]
    return NameFacts(*agreed)._replace(slide=slide.name, x=None, y=None)


def _facts(index: DatasetIndex, patch: Patch) -> NameFacts:
    """What a name states; of a tile, what the index knows, whatever the slide is called."""
    if patch.archive.kind != Kind.SLIDE:
        place = index.location(patch.archive)
        return parse_name(patch.member.name, patch.archive.name_pattern, place)
    tile, tiling = tile_of(patch.member), index.tiling
    return NameFacts(
        size=tile.size_px,
        mpp=tiling.mpp,
        overlap=tiling.overlap if tiling.coordinates is None else None,
        level0_size=tile.side,
    )


def coordinates_of(index: DatasetIndex, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """X and y in pixels of some patches, (N, 2).

    Raises:
        DataError: If a name has none.
    """
    places = np.empty((len(rows), 2), dtype=np.int64)
    for first in range(0, len(rows), NAMES_AT_A_TIME):
        some = rows[first : first + NAMES_AT_A_TIME]
        for place, found in enumerate(_places(index, some), first):
            if found is None:
                raise _no_coordinates(index, int(rows[place]))
            places[place] = found
    return places


def _places(index: DatasetIndex, rows: NDArray[np.int64]) -> Iterator[tuple[int, int] | None]:
    if index.has_slides:
        return (patch.coordinates for patch in index.patches(rows))
    return (coordinates(name, index.selection.name_pattern) for name in index.names(rows))


def _no_coordinates(index: DatasetIndex, row: int) -> DataError:
    patch = index.patch(row)
    place = printable(f"{patch.archive.path}: {patch.member.name}")
    return DataError(
        f"{place}: the name states no x and y in pixels. "
        f"Say where they stand with --name-pattern, or leave them out with --no-coords."
    )


def digest_of(index: DatasetIndex, slide: SlidePatches) -> str:
    """What tells the patches of a slide from others of the same name: names, sizes and CRCs.

    Tiles have no CRC; what stands for their pixels is how they are read, and the slide's file.
    """
    digest = hashlib.sha256()
    for first, end in slide.spans:
        names = index.names(np.arange(first, end))
        digest.update("\0".join(names).encode("utf-8", "surrogatepass"))
        for column in ("size", "crc32"):
            digest.update(index.columns[column][first:end].tobytes())
        archive = index.patch(first).archive
        if archive.kind == Kind.SLIDE:
            digest.update(f"{archive.size} {archive.mtime}".encode())
            for column in ("compressed_size", "method"):
                digest.update(index.columns[column][first:end].tobytes())
    return digest.hexdigest()[:32]


def file_names(slides: Sequence[SlidePatches]) -> dict[str, str]:
    """A path for the file of each slide, without a suffix, which never leads out of its folder.

    Raises:
        DataError: If two slides would share one.
    """
    taken: dict[str, str] = {}
    for slide in slides:
        parts = [part for part in slide.name.split("/") if part not in ("", ".", "..")]
        path = "/".join(parts).replace("\0", "") or "slide"
        if path in taken:
            raise DataError(
                f"{printable(path)}: two slides would be written to this one file "
                f"({printable(taken[path])} and {printable(slide.name)}). "
                f"Rename one, or tell slides by --name-pattern with a group slide."
            )
        taken[path] = slide.name
    return {slide: path for path, slide in taken.items()}
