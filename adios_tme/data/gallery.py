"""Some images of a folder, or tiles of slides, with their slides and classes, to be drawn together.

Shape legend: B images, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiles, tiling_of
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import Pixels, decode_file
from adios_tme.data.index import Patch
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Kind, printable
from adios_tme.data.names import slide_of
from adios_tme.data.reader import OpenSources
from adios_tme.data.resize import resize_image
from adios_tme.data.scan import scan_source
from adios_tme.data.slides.files import check_tiling, refuse_without_scale
from adios_tme.data.sources import Source, can_be_seen, find_sources, is_archive, only_slides
from adios_tme.data.spread import spread
from adios_tme.errors import DataError

Progress = Callable[[int, int], None]

#: Images alone.
NO_SLIDES = SlideTiles()
_ADVICE = "Give a folder of images or of archives, an image, a zip or a tar."


@dataclass(frozen=True)
class Gallery:
    """Images, and where each is from."""

    images: Tensor
    """uint8 (B, 3, S, S)."""
    slides: tuple[str, ...]
    classes: tuple[str, ...]
    """Folder, archive or slide right below the folder that was given, in which each lies."""


@dataclass(frozen=True)
class _Place:
    patch: Patch
    slide: str
    group: str


def read_gallery(
    source: Path,
    num_images: int,
    img_size: int,
    left_out: LeftOut,
    on_progress: Progress = lambda done, total: None,
    tiles: SlideTiles = NO_SLIDES,
) -> Gallery:
    """Read images spread evenly over all there are, in a folder and those below it.

    Args:
        source: Folder of images, folders or archives, a zip or tar, or an image file; with a scale,
            a slide or a folder of them.
        num_images: How many at most.
        img_size: S; images are resized to it.
        left_out: Where files that are no images are counted, and what was noticed of slides.
        on_progress: Called with what is done and the total.
        tiles: Which tiles of slides; without a scale, images are read.

    Raises:
        ConfigError: If a slide is given without a scale, or slides need a package or file that is
            missing.
        DataError: If there is no image, or one cannot be read.
    """
    if not can_be_seen(source):
        raise DataError(f"{source}: does not exist. {_ADVICE}")
    if tiles.mpp is not None:
        found = _tiles(source, num_images, tiles, left_out)
    elif source.is_dir() or is_archive(source):
        found = _places(source, left_out)
    else:
        refuse_without_scale(source)
        image = torch.from_numpy(resize_image(_decoded(source), img_size).copy())
        return Gallery(image.permute(2, 0, 1)[None].contiguous(), (source.stem,), (source.stem,))
    places = spread(found, num_images)
    pixels = []
    with closing(OpenSources()) as sources:
        for done, place in enumerate(places, start=1):
            pixels.append(resize_image(_read(sources, place.patch), img_size))
            on_progress(done, len(places))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Gallery(
        images, tuple(each.slide for each in places), tuple(each.group for each in places)
    )


def _tiles(source: Path, num_images: int, tiles: SlideTiles, left_out: LeftOut) -> list[_Place]:
    """Tiles of as many slides as there may be images, since finding tissue takes its time."""
    found = only_slides(find_sources(source, slides=True), source)
    slides = spread(found.sources, num_images)
    check_tiling(tiling_of(tiles), [slide.path for slide in slides])
    root = source if source.is_dir() else source.parent
    places = [place for slide in slides for place in _in_source(slide, root, left_out, tiles)]
    if not places:
        raise DataError(
            f"{source}: no tile of tissue is found in {len(slides)} of {len(found.sources)} "
            f"slides. Look at the previews of adios-tme index, or give --tissue none."
        )
    return places


def _places(folder: Path, left_out: LeftOut) -> list[_Place]:
    found = find_sources(folder)
    left_out.merge(found.left_out, folder.name)
    root = folder.parent if folder.is_file() else folder
    places = [place for each in found.sources for place in _in_source(each, root, left_out)]
    if not places:
        raise DataError(f"{folder}: holds no image. {_ADVICE}")
    return places


def _in_source(
    source: Source, root: Path, left_out: LeftOut, tiles: SlideTiles = NO_SLIDES
) -> list[_Place]:
    selection = PatchSelection(all=True, patch_size_px=tiles.patch_size_px)
    scan = scan_source(source, selection, tiling_of(tiles))
    if scan.fault is not None:
        raise DataError(scan.fault)
    place = source.path if source.kind == Kind.FOLDER else source.path.with_suffix("")
    below = PurePosixPath(place.relative_to(root).as_posix())
    left_out.merge(scan.left_out, str(below) if below.parts else root.name)
    group = below.parts[0] if below.parts else root.name
    places = []
    for member in map(scan.members.member, range(len(scan.members))):
        slide = str(below) if source.kind == Kind.SLIDE else slide_of(str(below), member.name)
        places.append(_Place(Patch(scan.entry, member), slide.strip("/.") or root.name, group))
    return places


def _read(sources: OpenSources, patch: Patch) -> Pixels:
    try:
        return sources.read_patch(patch)
    except CorruptPatchError as error:
        where = printable(patch.name) or f"the tile at x {patch.x}, y {patch.y}"
        name = f"{patch.archive.full_path}: {where}"
        raise DataError(f"{name} cannot be read ({error}). Mend or remove it.") from error


def _decoded(path: Path) -> Pixels:
    try:
        return decode_file(path)
    except CorruptPatchError as error:
        raise DataError(f"{path}: {error}. Give another image.") from error
