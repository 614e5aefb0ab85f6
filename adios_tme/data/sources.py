"""Where patches are kept: zip archives, tars and folders of images below one folder, or a list."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adios_tme.data.archive import read_directory, read_member
from adios_tme.data.decode import is_image_name
from adios_tme.data.folder import read_file, read_folder
from adios_tme.data.members import Directory, Kind, Member
from adios_tme.data.pickle_list import read_listing
from adios_tme.data.tar import read_tar_directory, read_tar_member
from adios_tme.errors import ConfigError, DataError

ARCHIVE_SUFFIXES = {".zip": Kind.ZIP, ".tar": Kind.TAR}
LISTING_SUFFIX = ".pkl"

#: How one member is read from the open file descriptor of its source.
READERS: dict[Kind, Callable[[int, Member], bytes]] = {
    Kind.ZIP: read_member,
    Kind.TAR: read_tar_member,
    Kind.FOLDER: read_file,
}
_LISTERS: dict[Kind, Callable[[Path], Directory]] = {
    Kind.ZIP: read_directory,
    Kind.TAR: read_tar_directory,
    Kind.FOLDER: read_folder,
}


@dataclass(frozen=True)
class Source:
    """An archive, or a folder that holds images."""

    path: Path
    kind: Kind
    names: frozenset[str] | None = None
    """Members that a list asks for; None: the rule of selection decides."""

    def list_members(self) -> Directory:
        """Every member, without reading one.

        Raises:
            DataError: If the source is damaged.
            OSError: If it cannot be read.
        """
        return _LISTERS[self.kind](self.path)


def is_listing(data_path: Path) -> bool:
    """Whether patches are named by a list instead of being searched in a folder."""
    return data_path.suffix == LISTING_SUFFIX and data_path.is_file()


def find_sources(data_path: Path) -> list[Source]:
    """Archives and folders of images, sorted by path; links to folders are followed once.

    Args:
        data_path: A folder, searched with its subfolders, or a ``dataset_index.pkl``.

    Raises:
        ConfigError: If it is missing, or neither.
        DataError: If there is no source in it, or the list is damaged.
    """
    if is_listing(data_path):
        return _listed(data_path)
    if not data_path.is_dir():
        what = "is not a folder" if data_path.exists() else "does not exist"
        raise ConfigError(
            f"data_path: {data_path} {what}. Give a folder of zip archives, tars or images."
        )
    sources = sorted(_walk(data_path), key=lambda source: source.path)
    if not sources:
        raise DataError(
            f"{data_path}: holds no zip archive, no tar and no image. Patches are read from this "
            f"folder and those below it; compressed tars have to be unpacked to .tar first."
        )
    return sources


def _walk(data_path: Path) -> list[Source]:
    sources = []
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(data_path, followlinks=True):
        found = Path(place).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()  # a link led back to where the walk has been
            continue
        seen.add((found.st_dev, found.st_ino))
        folder = Path(place)
        for name in files:
            kind = ARCHIVE_SUFFIXES.get(Path(name).suffix.lower())
            if kind is not None:
                sources.append(Source(folder / name, kind))
        if any(map(is_image_name, files)):
            sources.append(Source(folder, Kind.FOLDER))
    return sources


def _listed(path: Path) -> list[Source]:
    """The archives of a list, found where it says or beside the list."""
    names: dict[Path, set[str]] = {}
    for archive, members in read_listing(path):
        names.setdefault(_locate(Path(archive), path.parent), set()).update(members)
    kinds = {place: ARCHIVE_SUFFIXES.get(place.suffix.lower(), Kind.FOLDER) for place in names}
    return [Source(place, kinds[place], frozenset(names[place])) for place in sorted(names)]


def _locate(archive: Path, folder: Path) -> Path:
    beside = folder / archive.name
    return beside if not (folder / archive).exists() and beside.exists() else folder / archive
