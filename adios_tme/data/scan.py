"""What the archives and folders of a data set hold, from their tables of contents alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiling
from adios_tme.data.decode import is_image_name
from adios_tme.data.folder import own_pictures
from adios_tme.data.index import ArchiveEntry
from adios_tme.data.junk import junk_members
from adios_tme.data.left_out import NUM_EXAMPLES, LeftOut, Reason
from adios_tme.data.members import (
    DEFLATED,
    EMPTY,
    ENCRYPTED,
    NOT_REGULAR,
    OUTSIDE,
    OVERLAPS,
    STORED,
    UNSAFE_NAME,
    Directory,
    Kind,
    printable,
)
from adios_tme.data.selection import refuse_unsafe_names, sort_members
from adios_tme.data.slides.plan import plan_slide
from adios_tme.data.slides.tiles import directory_of_tiles
from adios_tme.data.sources import Source
from adios_tme.distributed.pool import process_pool
from adios_tme.errors import DataError

#: Archives, and bytes of them, under which starting processes costs more than it saves.
FEWEST_FOR_PROCESSES = 64
LEAST_BYTES_FOR_PROCESSES = 16 << 30
NUM_NAMES_SHOWN, NUM_NAMES_SEARCHED = 3, 1000

#: Patches that stay in the index, so that reading them says why it cannot be done.
_UNREADABLE: dict[Reason, tuple[int, ...]] = {
    "encrypted": (ENCRYPTED,),
    "unsafe_name": (UNSAFE_NAME,),
    "not_regular": (NOT_REGULAR,),
    "misplaced": (OVERLAPS, OUTSIDE),
}
#: What is left out of images that could be patches.
_IMAGES: tuple[Reason, ...] = ("rule", "thumbnail")
_READABLE = (STORED, DEFLATED)
#: Of sources that are no slides.
NO_TILING = SlideTiling()


@dataclass
class Scan:
    """What one archive holds, or why it cannot be read."""

    entry: ArchiveEntry
    members: Directory
    left_out: LeftOut = field(default_factory=LeftOut)
    names_seen: tuple[str, ...] = ()
    """Some members, if none is a patch: of the images, where there are any."""
    fault: str | None = None

    @property
    def num_images(self) -> int:
        """Images, whether they are patches or not."""
        return len(self.members) + sum(map(self.left_out.count, _IMAGES))


def scan_all(
    sources: list[Source], selection: PatchSelection, tiling: SlideTiling, num_workers: int
) -> Iterator[Scan]:
    """Scan archives, folders and slides in their order, many of them in several processes.

    Raises:
        ConfigError: If slides need a package or file that is missing.
        LaunchError: If one of the processes is killed.
    """
    scan = partial(scan_source, selection=selection, tiling=tiling)
    if num_workers < 2 or not _are_many(sources):
        yield from map(scan, sources)
        return
    chunk = max(1, min(8, len(sources) // (4 * num_workers)))
    with process_pool(num_workers, "Reading archives") as pool:
        yield from pool.map(scan, sources, chunksize=chunk)


def _are_many(sources: list[Source]) -> bool:
    if len(sources) >= FEWEST_FOR_PROCESSES:
        return True
    if sum(source.kind == Kind.SLIDE for source in sources) > 1:
        return True
    return len(sources) > 1 and sum(map(_archive_bytes, sources)) > LEAST_BYTES_FOR_PROCESSES


def _archive_bytes(source: Source) -> int:
    """Size of an archive; a folder counts for nothing."""
    if source.kind == Kind.FOLDER:
        return 0
    try:
        return source.path.stat().st_size
    except OSError:  # scanning it says why
        return 0


def scan_source(source: Source, selection: PatchSelection, tiling: SlideTiling = NO_TILING) -> Scan:
    """List one archive or folder, and tell patches from what is left out; of a slide, find tiles.

    Raises:
        ConfigError: If slides need a package or file that is missing.
    """
    entry = ArchiveEntry(str(source.path), 0, 0, source.kind)
    left_out = LeftOut()
    try:
        stat = source.path.stat()
        if source.kind == Kind.SLIDE:
            members = _tiles(source, selection.patch_size_px, tiling, left_out)
        else:
            members = source.list_members()
    except OSError as error:
        place = printable(str(source.path))
        return Scan(entry, EMPTY, fault=f"{place}: cannot be read ({error.strerror}).")
    except DataError as error:
        return Scan(entry, EMPTY, fault=str(error))
    entry = ArchiveEntry(str(source.path), stat.st_size, stat.st_mtime_ns, source.kind)
    if source.kind == Kind.SLIDE:
        return Scan(entry, members, left_out)
    if source.names is None:
        keep = _by_rule(members, source, selection, left_out)
    else:
        keep = _by_list(members, source.names, left_out)
    seen = () if keep.any() else _some_names(members)
    patches = refuse_unsafe_names(members.select(keep))
    for reason, methods in _UNREADABLE.items():
        _leave_out(left_out, reason, patches, np.isin(patches.method, methods))
    other_methods = ~np.isin(patches.method, [*_READABLE, *sum(_UNREADABLE.values(), ())])
    _leave_out(left_out, "packing", patches, other_methods)
    return Scan(entry, patches, left_out, seen)


def _tiles(source: Source, size_px: int, tiling: SlideTiling, left_out: LeftOut) -> Directory:
    """The tiles of a slide as members, and what was noticed in the account."""
    plan = plan_slide(source.path, tiling, size_px)
    left_out.merge(plan.notices)
    return directory_of_tiles(plan.places, plan.side, size_px, plan.level, icc=tiling.icc)


def _by_rule(
    members: Directory, source: Source, selection: PatchSelection, left_out: LeftOut
) -> NDArray[np.bool_]:
    found = sort_members(members, selection)
    patches, not_taken = found.patches, found.not_taken
    if source.kind == Kind.FOLDER:
        own = own_pictures(source.path, members.all_names())
        patches, not_taken = patches & ~own, not_taken & ~own
        _leave_out(left_out, "own", members, own)
    rows: dict[Reason, NDArray[np.bool_]] = {
        "rule": not_taken,
        "thumbnail": found.thumbnails,
        "junk": found.junk,
        "not_an_image": found.other_files,
    }
    for reason, mask in rows.items():
        _leave_out(left_out, reason, members, mask)
    return patches


def _by_list(members: Directory, asked: frozenset[str], left_out: LeftOut) -> NDArray[np.bool_]:
    """Members that a list asks for, unless they are junk."""
    names = members.all_names()
    junk = junk_members(members)
    listed = np.array([name in asked for name in names], dtype=bool)
    _leave_out(left_out, "junk", members, junk & listed)
    _leave_out(left_out, "unlisted", members, ~junk & ~listed)
    missing = asked.difference(names)
    left_out.add("unnamed", sorted(missing)[:NUM_EXAMPLES], len(missing))
    return listed & ~junk


def _leave_out(
    left_out: LeftOut, reason: Reason, members: Directory, rows: NDArray[np.bool_]
) -> None:
    places = np.flatnonzero(rows)
    examples = [members.name(int(row)) for row in places[:NUM_EXAMPLES]]
    left_out.add(reason, examples, len(places))


def _some_names(members: Directory) -> tuple[str, ...]:
    """A few names, those of images first."""
    names = map(members.name, range(len(members)))
    some = list(islice(names, NUM_NAMES_SEARCHED))
    return tuple(sorted(some, key=lambda name: not is_image_name(name))[:NUM_NAMES_SHOWN])
