"""Some images of a folder with their slides and classes, to be drawn together.

Shape legend: B images, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from adios_tme.config.data import PatchSelection
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import Pixels, decode_image
from adios_tme.data.images import load_images
from adios_tme.data.index import Patch
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Kind, printable
from adios_tme.data.names import slide_of
from adios_tme.data.reader import OpenArchives
from adios_tme.data.resize import resize_image
from adios_tme.data.scan import scan_source
from adios_tme.data.sources import Source, find_sources, is_archive
from adios_tme.data.spread import spread
from adios_tme.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Gallery:
    """Images, and where each is from."""

    images: Tensor
    """uint8 (B, 3, S, S)."""
    slides: tuple[str, ...]
    classes: tuple[str, ...]
    """Folder or archive right below the one that was given, in which each lies."""


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
) -> Gallery:
    """Read images spread evenly over all there are, in a folder and those below it.

    Args:
        source: Folder of images, folders or archives, a zip archive, or an image file.
        num_images: How many at most.
        img_size: S; images are resized to it.
        left_out: Where files that are no images are counted.
        on_progress: Called with what is done and the total.

    Raises:
        DataError: If there is no image, or one cannot be read.
    """
    if not source.is_dir() and not is_archive(source):
        images = load_images(source, num_images, img_size, left_out)
        names = (source.stem,) * len(images)
        return Gallery(images, names, names)
    found = _places(source, left_out)
    if not found:
        raise DataError(f"{source}: holds no image. Give a folder of images, or of archives.")
    places = spread(found, num_images)
    archives, pixels = OpenArchives(), []
    for done, place in enumerate(places, start=1):
        pixels.append(resize_image(_read(archives, place.patch), img_size))
        on_progress(done, len(places))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Gallery(
        images, tuple(each.slide for each in places), tuple(each.group for each in places)
    )


def _places(folder: Path, left_out: LeftOut) -> list[_Place]:
    found = find_sources(folder)
    left_out.merge(found.left_out, folder.name)
    folder = folder.parent if folder.is_file() else folder
    return [place for source in found.sources for place in _in_source(source, folder, left_out)]


def _in_source(source: Source, folder: Path, left_out: LeftOut) -> list[_Place]:
    scan = scan_source(source, PatchSelection(all=True))
    if scan.fault is not None:
        raise DataError(scan.fault)
    place = source.path if source.kind == Kind.FOLDER else source.path.with_suffix("")
    below = PurePosixPath(place.relative_to(folder).as_posix())
    left_out.merge(scan.left_out, folder.name if place == folder else str(below))
    places = []
    for member in map(scan.members.member, range(len(scan.members))):
        path = below / member.name
        group = path.parts[0] if len(path.parts) > 1 else folder.name
        slide = slide_of(str(below), member.name).strip("/.") or folder.name
        places.append(_Place(Patch(scan.entry, member), slide, group))
    return places


def _read(archives: OpenArchives, patch: Patch) -> Pixels:
    try:
        return decode_image(archives.read(patch))
    except CorruptPatchError as error:
        name = f"{patch.archive.full_path}: {printable(patch.member.name)}"
        raise DataError(f"{name} cannot be read ({error}). Mend or remove it.") from error
