"""Images of folders and archives, or tiles of slides, listed without an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from adios_tme.config.base import cores_at_hand
from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiles, tiling_of
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import Pixels
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Kind, printable
from adios_tme.data.patch import Patch, with_tile_name
from adios_tme.data.reader import OpenSources
from adios_tme.data.scan import scan_all
from adios_tme.data.slides.files import check_tiling
from adios_tme.data.sources import Found, Source, find_sources, only_slides
from adios_tme.errors import DataError

#: Images alone.
NO_TILES = SlideTiles()


class ListedImage(NamedTuple):
    """An image, or a tile of a slide."""

    patch: Patch
    place: PurePosixPath
    """Folder, archive or slide that holds it, without a suffix, below the folder that was given."""

    @property
    def path(self) -> str:
        """Its own path below that folder."""
        return str(self.place / self.patch.member.name)


def find_images(folder: Path, tiles: SlideTiles = NO_TILES) -> Found:
    """What holds images in a folder and those below it; with a scale, the slides there.

    Raises:
        ConfigError: If slides are asked for, and their reader is missing.
        DataError: If there is nothing.
    """
    if tiles.mpp is None:
        return find_sources(folder)
    return only_slides(find_sources(folder, slides=True), folder)


def list_images(
    sources: Sequence[Source], root: Path, left_out: LeftOut, tiles: SlideTiles = NO_TILES
) -> Iterator[ListedImage]:
    """Every image that some sources hold, whatever its name, and every tile of slides.

    Args:
        sources: Of `find_images`.
        root: The folder that was given, or that of the file that was.
        left_out: Where what is no image is counted, and what was noticed of slides.
        tiles: How slides are cut.

    Raises:
        ConfigError: If slides need a package or file that is missing.
        DataError: If a source cannot be listed.
    """
    tiling = tiling_of(tiles)
    check_tiling(tiling, [source.path for source in sources if source.kind == Kind.SLIDE])
    selection = PatchSelection(all=True, patch_size_px=tiles.patch_size_px)
    scans = scan_all(list(sources), selection, tiling, cores_at_hand())
    for source, scan in zip(sources, scans, strict=True):
        if scan.fault is not None:
            raise DataError(scan.fault)
        path = source.path if source.kind == Kind.FOLDER else source.path.with_suffix("")
        place = PurePosixPath(path.relative_to(root).as_posix())
        inside = place.parent if source.kind == Kind.SLIDE else place
        left_out.merge(scan.left_out, str(root.name / inside))
        for member in map(scan.members.member, range(len(scan.members))):
            named = with_tile_name(scan.entry, member, tiles.mpp or 0)
            yield ListedImage(Patch(scan.entry, named), place)


def read_image(sources: OpenSources, patch: Patch, needed_px: int | None = None) -> Pixels:
    """An image (H, W, 3) that has to be read; ``needed_px`` as in `decode_image`.

    Raises:
        DataError: If it cannot be.
    """
    try:
        return sources.read_patch(patch, needed_px)
    except CorruptPatchError as error:
        joint = "/" if patch.archive.kind == Kind.FOLDER else ": "
        name = printable(f"{patch.archive.full_path}{joint}{patch.member.name}")
        raise DataError(f"{name} cannot be read ({error}). Mend or remove it.") from error
