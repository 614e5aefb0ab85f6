"""A few images for pictures, from a folder, a zip archive or a single file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from adios_tme.data.archive import read_directory, read_member
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import Pixels, decode_file, decode_image, is_image_name
from adios_tme.data.resize import resize_image
from adios_tme.errors import DataError

T = TypeVar("T")


def load_images(source: Path, num_images: int, img_size: int) -> Tensor:
    """Read images spread evenly over all there are.

    Args:
        source: Folder of images, zip archive, or image file.
        num_images: How many at most.
        img_size: Side to which they are resized, in pixels.

    Returns:
        uint8 (B, 3, S, S).

    Raises:
        DataError: If there is no image, or one cannot be read.
    """
    pixels = _read_archive(source, num_images) if source.suffix == ".zip" else []
    if not pixels:
        pixels = [_read_file(path) for path in _spread(_files(source), num_images)]
    resized = np.stack([resize_image(image, img_size) for image in pixels])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = source.iterdir() if source.is_dir() else []
    images = sorted(path for path in found if is_image_name(path.name))
    if not images:
        what = "holds no image" if source.is_dir() else "does not exist"
        raise DataError(f"{source}: {what}. Give a folder of images, an image, or a zip archive.")
    return images


def _spread(items: list[T], count: int) -> list[T]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def _read_file(path: Path) -> Pixels:
    try:
        return decode_file(path)
    except CorruptPatchError as error:
        raise DataError(f"{path}: {error}. Give other images.") from error


def _read_archive(path: Path, num_images: int) -> list[Pixels]:
    try:
        directory = read_directory(path)
        members = [directory.member(row) for row in range(len(directory))]
        images = [member for member in members if is_image_name(member.name)]
        with path.open("rb") as file:
            contents = [
                read_member(file.fileno(), member) for member in _spread(images, num_images)
            ]
        return [decode_image(content) for content in contents]
    except (OSError, CorruptPatchError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Give other images.") from error
