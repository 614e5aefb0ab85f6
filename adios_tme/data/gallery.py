"""Some images of a folder, or tiles of slides, with their slides and classes, to be drawn together.

Shape legend: B images, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adios_tme.config.slides import SlideTiles
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import Pixels, decode_file
from adios_tme.data.image_list import (
    NO_TILES,
    ListedImage,
    find_images,
    list_images,
    read_image,
)
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Kind
from adios_tme.data.names import slide_of
from adios_tme.data.reader import OpenSources
from adios_tme.data.resize import resize_image
from adios_tme.data.slides.files import refuse_without_scale
from adios_tme.data.sources import can_be_seen, is_archive
from adios_tme.data.spread import spread
from adios_tme.errors import DataError

Progress = Callable[[int, int], None]

_ADVICE = "Give a folder of images or of archives, an image, a zip or a tar."


@dataclass(frozen=True)
class Gallery:
    """Images, and where each is from."""

    images: Tensor
    """uint8 (B, 3, S, S)."""
    slides: tuple[str, ...]
    classes: tuple[str, ...]
    """Folder, archive or slide right below the folder that was given, in which each lies."""


def read_gallery(
    source: Path,
    num_images: int,
    img_size: int,
    left_out: LeftOut,
    on_progress: Progress = lambda done, total: None,
    tiles: SlideTiles = NO_TILES,
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
    if not (source.is_dir() or is_archive(source) or tiles.mpp is not None):
        refuse_without_scale(source)
        image = torch.from_numpy(resize_image(_decoded(source), img_size).copy())
        return Gallery(image.permute(2, 0, 1)[None].contiguous(), (source.stem,), (source.stem,))
    root = source if source.is_dir() else source.parent
    listed = spread(_listed(source, root, num_images, left_out, tiles), num_images)
    pixels = []
    with closing(OpenSources()) as sources:
        for done, each in enumerate(listed, start=1):
            pixels.append(resize_image(read_image(sources, each.patch), img_size))
            on_progress(done, len(listed))
    return Gallery(
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        tuple(_slide(each) or root.name for each in listed),
        tuple(each.place.parts[0] if each.place.parts else root.name for each in listed),
    )


def _listed(
    source: Path, root: Path, num_images: int, left_out: LeftOut, tiles: SlideTiles
) -> list[ListedImage]:
    found = find_images(source, tiles)
    left_out.merge(found.left_out, root.name)
    left_out.add("unreadable", (str(fault.path) for fault in found.faults), len(found.faults))
    # Finding tissue takes its time: no more slides than there may be images.
    sources = found.sources if tiles.mpp is None else spread(found.sources, num_images)
    images = list(list_images(sources, root, left_out, tiles))
    if images:
        return images
    if tiles.mpp is None:
        raise DataError(f"{source}: holds no image. {_ADVICE}")
    raise DataError(
        f"{source}: no tile of tissue is found in {len(sources)} of {len(found.sources)} slides. "
        f"Look at the previews of adios-tme index, or give --tissue none."
    )


def _slide(image: ListedImage) -> str:
    if image.patch.archive.kind == Kind.SLIDE:
        return str(image.place)
    return slide_of(str(image.place), image.patch.member.name).strip("/.")


def _decoded(path: Path) -> Pixels:
    try:
        return decode_file(path)
    except CorruptPatchError as error:
        raise DataError(f"{path}: {error}. Give another image.") from error
