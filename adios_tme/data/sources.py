"""Where patches are kept: archives, folders of images, whole slides, or a list of archives."""

from __future__ import annotations

import heapq
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adios_tme.data.archive import read_directory, read_member
from adios_tme.data.decode import is_image_name
from adios_tme.data.folder import read_file, read_folder
from adios_tme.data.junk import is_junk
from adios_tme.data.left_out import NUM_EXAMPLES, LeftOut, Reason
from adios_tme.data.members import Directory, Kind, Member, printable
from adios_tme.data.pickle_list import read_listing
from adios_tme.data.slides.files import (
    SLIDE_SUFFIXES,
    TIFF_SUFFIXES,
    first_of_each_series,
    refuse_without_scale,
)
from adios_tme.data.slides.reader import is_slide
from adios_tme.data.tar import read_tar_directory, read_tar_member
from adios_tme.errors import ConfigError, DataError
from adios_tme.files import RUN_FILES

ARCHIVE_SUFFIXES = {".zip": Kind.ZIP, ".tar": Kind.TAR}
LISTING_SUFFIX = ".pkl"
_OTHER_ARCHIVE = re.compile(
    r"\.(?:z\d\d|(?:zip|tar|7z)\.\d{3}|7z|rar|tgz|tbz2?|txz|gz|bz2|xz|zst|lz4|lzma|iso|dmg)$",
    re.IGNORECASE,
)
#: Indexes and lists of ours, and files that are not whole yet.
_OWN_FILE = re.compile(
    r"slides\.jsonl|(?:\d+_|slides_)?dataset_index(?:_metadata)?\.(?:safetensors|pkl)|"
    rf".*(?:\.pkl|{'|'.join(SLIDE_SUFFIXES | TIFF_SUFFIXES)})\.safetensors|\..*\.partial"
)

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
    slides: frozenset[str] = frozenset()
    """Files of a folder that are whole slides, and so sources of their own."""

    def list_members(self) -> Directory:
        """Every member, without reading one.

        Raises:
            DataError: If the source is damaged.
            OSError: If it cannot be read.
        """
        members = _LISTERS[self.kind](self.path)
        if not self.slides:
            return members
        return members.select(np.array([name not in self.slides for name in members.all_names()]))


class Fault(NamedTuple):
    """An archive or folder that was left out, and why."""

    path: Path
    message: str


@dataclass
class Found:
    """What there is below a folder."""

    sources: list[Source] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    """Folders that cannot be listed, and names of a list that no file can have."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Files beside the archives and images."""
    sizes_are_unsaid: bool = False
    """Whether all are plain folders whose names state no size, so that every image is taken."""


def is_listing(data_path: Path) -> bool:
    """Whether patches are named by a list instead of being searched in a folder."""
    has_suffix = data_path.suffix.lower() == LISTING_SUFFIX
    return has_suffix and can_be_seen(data_path) and data_path.is_file()


def is_archive(data_path: Path) -> bool:
    """Whether patches are those of one zip or tar instead of a folder of them."""
    has_suffix = data_path.suffix.lower() in ARCHIVE_SUFFIXES
    return has_suffix and can_be_seen(data_path) and data_path.is_file()


def can_be_seen(path: Path) -> bool:
    """Whether something is there that this user may look at."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def check_data_path(data_path: Path, *, slides: bool = False) -> None:
    """Raise unless patches can be searched there; with slides, one of them may stand for a folder.

    Raises:
        ConfigError: If it is missing, or neither a folder, an archive nor a list; or a slide, where
            none is wanted.
        DataError: If it may not be looked at.
    """
    try:
        is_folder = stat.S_ISDIR(data_path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist"
    except OSError as error:
        raise DataError(
            f"{data_path}: cannot be looked at ({error.strerror}). Allow it to be read."
        ) from error
    else:
        is_file_of_patches = is_listing(data_path) or is_archive(data_path)
        if is_folder or is_file_of_patches or (slides and data_path.is_file()):
            return
        refuse_without_scale(data_path)
        what = "is neither a folder nor an archive"
    raise ConfigError(
        f"data_path: {data_path} {what}. Give a folder of zip archives, tars or images, or one "
        f"zip or tar."
    )


def find_sources(data_path: Path, own: Iterable[Path] = (), *, slides: bool = False) -> Found:
    """Archives, slides and folders of images, sorted by path; links to folders are followed once.

    Folders that a run has written to are left out.

    Args:
        data_path: A folder, searched with its subfolders, an archive, or a ``dataset_index.pkl``;
            see `check_data_path`.
        own: Files and folders to which we write.
        slides: Whether slides are wanted.

    Raises:
        ConfigError: If they are, there are some, and their reader is missing.
        DataError: If there is no source in it, or the list is damaged.
    """
    if is_listing(data_path):
        return _listed(data_path)
    if is_archive(data_path):
        return Found([Source(data_path, ARCHIVE_SUFFIXES[data_path.suffix.lower()])])
    if slides and data_path.is_file():
        return Found([Source(data_path, Kind.SLIDE)])
    found = _Walk(data_path, own, slides=slides).run()
    if found.sources:
        return found
    if found.faults:
        raise DataError(
            f"{data_path}: no folder with images or archives. {found.faults[0].message}"
        )
    others = "".join(f" {line}" for line in found.left_out.lines())
    raise DataError(
        f"{data_path}: holds no zip archive, no tar and no image{', and no slide' * slides}. "
        f"Patches are read from this folder and those below it; compressed tars have to be "
        f"unpacked to .tar first.{others}"
    )


def only_slides(found: Found, data_path: Path) -> Found:
    """The slides among what was found; the others are counted as left out.

    Raises:
        DataError: If there is none.
    """
    slides = [source for source in found.sources if source.kind == Kind.SLIDE]
    if slides:
        others = [str(source.path) for source in found.sources if source.kind != Kind.SLIDE]
        found.left_out.add("not_a_slide", others, len(others))
        return Found(slides, found.faults, found.left_out)
    raise DataError(
        f"{data_path}: holds no whole slide. Slides end in "
        f"{' '.join(sorted(SLIDE_SUFFIXES | TIFF_SUFFIXES))}, and TIFFs must be tiled. "
        f"Give their folder."
    )


class _Walk:
    """One way through a folder and those below it."""

    def __init__(self, data_path: Path, own: Iterable[Path], *, slides: bool) -> None:
        self.data_path = data_path
        self._slides = slides
        self._own = {_identity(path) for path in own if path.exists()}
        self._seen: set[tuple[int, int]] = set()
        self._found = Found()

    def run(self) -> Found:
        """All that there is; sources are sorted by path."""
        for place, folders, files in os.walk(self.data_path, onerror=self._note, followlinks=True):
            folder = Path(place)
            identity = _identity(folder)
            if identity in self._seen:
                folders.clear()  # a link led back to where the walk has been
                continue
            self._seen.add(identity)
            if self._is_output(folder, identity, files):
                self._leave_out("own", folder, ["."])
                folders.clear()
                continue
            self._leave_out("junk", folder, list(filter(is_junk, folders)))
            folders[:] = [name for name in folders if not is_junk(name)]
            folders[:] = [name for name in folders if f"{name}.mrxs" not in files]  # a slide's own
            self._add_files(folder, files)
        self._found.sources.sort(key=lambda source: source.path)
        return self._found

    def _is_output(self, folder: Path, identity: tuple[int, int], files: list[str]) -> bool:
        """Whether a folder is that of a run; the one that was asked for is searched anyway."""
        return folder != self.data_path and (identity in self._own or RUN_FILES.issubset(files))

    def _add_files(self, folder: Path, files: list[str]) -> None:
        others: dict[Reason, list[str]] = {
            "junk": [],
            "archive_kind": [],
            "not_an_image": [],
            "slide_without_scale": [],
        }
        slides: list[str] = []
        has_images = False
        for name in files:
            kind = ARCHIVE_SUFFIXES.get(Path(name).suffix.lower())
            if is_junk(name):
                others["junk"].append(name)
            elif kind is not None:
                self._found.sources.append(Source(folder / name, kind))
            elif self._may_be_slide(folder, name):
                slides.append(name)
            elif is_image_name(name):
                has_images = True
            elif _OTHER_ARCHIVE.search(name):
                others["archive_kind"].append(name)
            elif not self._is_own_file(folder, name):
                others["not_an_image"].append(name)
        if not self._slides:
            others["slide_without_scale"], slides = slides, []
        for name in first_of_each_series(folder, slides):
            self._found.sources.append(Source(folder / name, Kind.SLIDE))
        if has_images:
            self._found.sources.append(Source(folder, Kind.FOLDER, slides=frozenset(slides)))
        for reason, names in others.items():
            self._leave_out(reason, folder, names)

    def _may_be_slide(self, folder: Path, name: str) -> bool:
        """Whether a file is a slide: by its suffix, or of a TIFF by what is in it."""
        suffix = Path(name).suffix.lower()
        if suffix in TIFF_SUFFIXES:
            return self._slides and is_slide(folder / name)
        return suffix in SLIDE_SUFFIXES

    def _is_own_file(self, folder: Path, name: str) -> bool:
        return bool(_OWN_FILE.fullmatch(name)) or (
            bool(self._own) and _identity(folder / name) in self._own
        )

    def _leave_out(self, reason: Reason, folder: Path, names: list[str]) -> None:
        first = heapq.nsmallest(NUM_EXAMPLES, names)
        examples = [str((folder / name).relative_to(self.data_path)) for name in first]
        self._found.left_out.add(reason, examples, len(names))

    def _note(self, error: OSError) -> None:
        """Keep a folder that cannot be listed, which the walk passes over."""
        path = Path(error.filename)
        place = path.relative_to(self.data_path) if path != self.data_path else path
        self._found.faults.append(
            Fault(
                path,
                f"{printable(str(place))}: cannot be listed ({error.strerror}). "
                f"Allow it to be read, or move it away.",
            )
        )


def _identity(path: Path) -> tuple[int, int]:
    """Tells files and folders apart, whatever links lead to them."""
    try:
        found = path.stat()
    except OSError:  # a link that leads nowhere, or a file that has just gone
        return 0, 0
    return found.st_dev, found.st_ino


def _listed(path: Path) -> Found:
    """The archives of a list, found where it says or beside the list."""
    found = Found()
    names: dict[Path, set[str]] = {}
    for archive, members in read_listing(path):
        if is_junk(archive):
            found.left_out.add("junk", [archive])
        elif not _may_be_a_path(archive):
            message = f"{printable(archive)}: cannot be read (no file can have such a name)."
            found.faults.append(Fault(Path(archive), message))
        else:
            names.setdefault(_locate(Path(archive), path.parent), set()).update(members)
    for place in sorted(names):
        kind = ARCHIVE_SUFFIXES.get(place.suffix.lower(), Kind.FOLDER)
        found.sources.append(Source(place, kind, frozenset(names[place])))
    return found


def _may_be_a_path(archive: str) -> bool:
    try:
        return b"\0" not in os.fsencode(archive)
    except UnicodeEncodeError:
        return False


def _locate(archive: Path, folder: Path) -> Path:
    stated, beside = folder / archive, folder / archive.name
    return beside if not can_be_seen(stated) and can_be_seen(beside) else stated
