"""The names of images among those of other files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adios_tme.data.decode import is_image_name
from adios_tme.data.junk import is_junk
from adios_tme.data.left_out import LeftOut


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
