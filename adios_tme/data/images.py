"""A few images for pictures, from a folder, a zip archive or a single file."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adios_tme.data.archive import read_directory, read_member
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import Pixels, decode_file, decode_image, is_image_name
from adios_tme.data.folder import own_pictures
from adios_tme.data.junk import is_junk
from adios_tme.data.left_out import LeftOut
from adios_tme.data.resize import resize_image
from adios_tme.data.spread import spread
from adios_tme.errors import DataError

_ADVICE = "Give a folder of images, an image, or a zip archive."


def load_images(
    source: Path, num_images: int, img_size: int, left_out: LeftOut | None = None
) -> Tensor:
    """Read images spread evenly over all there are.

    Args:
        source: Folder of images, zip archive, or image file.
        num_images: How many at most.
        img_size: Side to which they are resized, in pixels.
        left_out: Where files that are no images are counted.

    Returns:
        uint8 (B, 3, S, S).

    Raises:
        DataError: If there is no image, or one cannot be read.
    """
    account = LeftOut() if left_out is None else left_out
    is_archive = source.suffix.lower() == ".zip" and source.is_file()
    pixels = (_read_archive if is_archive else _read_files)(source, num_images, account)
    resized = np.stack([resize_image(image, img_size) for image in pixels])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()


def only_images(names: Iterable[str], left_out: LeftOut) -> list[str]:
    """The names of images among others, in order; the others are counted."""
    images = []
    for name in names:
        if is_junk(name):
            left_out.add("junk", [name])
        elif is_image_name(name):
            images.append(name)
        else:
            left_out.add("not_an_image", [name])
    return images


def files_in(folder: Path) -> list[str]:
    """The names of all that lies in a folder but folders, sorted."""
    return sorted(path.name for path in folder.iterdir() if not path.is_dir())


def _read_files(source: Path, num_images: int, left_out: LeftOut) -> list[Pixels]:
    return [_read_file(path) for path in spread(_files(source, left_out), num_images)]


def _files(source: Path, left_out: LeftOut) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: does not exist. {_ADVICE}")
    images = only_images(files_in(source), left_out)
    own = own_pictures(source, images)
    left_out.add("own", compress(images, own), int(own.sum()))
    if own.all():
        raise DataError(f"{source}: holds no image. {_ADVICE}")
    return [source / name for name in compress(images, ~own)]


def _read_file(path: Path) -> Pixels:
    try:
        return decode_file(path)
    except CorruptPatchError as error:
        raise DataError(f"{path}: {error}. Give other images.") from error


def _read_archive(path: Path, num_images: int, left_out: LeftOut) -> list[Pixels]:
    try:
        directory = read_directory(path)
        members = {member.name: member for member in map(directory.member, range(len(directory)))}
        files = [name for name in members if not name.endswith("/")]
        images = only_images(files, left_out)
        if not images:
            raise DataError(f"{path}: holds no image. {_ADVICE}")
        with path.open("rb") as file:
            return [
                decode_image(read_member(file.fileno(), members[name]))
                for name in spread(images, num_images)
            ]
    except (OSError, CorruptPatchError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Give other images.") from error
