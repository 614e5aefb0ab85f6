"""Labelled patches: a folder for each class, with images, archives and folders of them inside."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from adios_tme.benchmark.probe.samples import Samples
from adios_tme.config.data import PatchSelection
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import Pixels, decode_image, is_image_name
from adios_tme.data.index import Patch
from adios_tme.data.junk import is_junk
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Kind, printable
from adios_tme.data.names import slide_of
from adios_tme.data.reader import OpenArchives
from adios_tme.data.scan import scan_source
from adios_tme.data.sources import Source, find_sources
from adios_tme.errors import DataError

FindSlide = Callable[[str], str | None]
"""From an image's path below its class folder to its slide."""

_ADVICE = "Give a folder that holds a folder of images for each class."


def read_class_folders(
    folder: Path, slide_pattern: str | None = None, own: Sequence[Path] = ()
) -> Samples[Patch]:
    """The images of all classes, listed and not read.

    Args:
        folder: Holds a folder for each class.
        slide_pattern: See `slide_finder`.
        own: Folders to which we write, and which are no classes.

    Raises:
        DataError: If there is no class, one has no image, or something cannot be listed.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}). {_ADVICE}") from error
    kept_apart = {path.resolve() for path in own}
    classes = [
        path
        for path in entries
        if path.is_dir() and not is_junk(path.name) and path.resolve() not in kept_apart
    ]
    if not classes:
        raise DataError(f"{folder}: holds no folder, so no class. {_ADVICE}")
    beside = sum(is_image_name(path.name) for path in entries)
    notes = [f"{beside} images lie beside the folders of the classes and are not used."]
    find_slide, left_out = slide_finder(slide_pattern, folder), LeftOut()
    digest = hashlib.sha256()
    found: list[tuple[Patch, str, str, str | None]] = []
    for class_folder in classes:
        for patch, place in _patches_of(class_folder, left_out):
            slide = find_slide(place)
            digest.update(repr((class_folder.name, place, slide, _state(patch))).encode())
            found.append((patch, f"{class_folder.name}/{place}", class_folder.name, slide))
    patches, names, labels, slides = zip(*found, strict=True)
    facts = {"kind": "images", "path": str(folder.resolve()), "files": digest.hexdigest()}
    return Samples(
        folder, patches, names, labels, slides, facts, tuple(notes if beside else ()), left_out
    )


def _patches_of(class_folder: Path, left_out: LeftOut) -> list[tuple[Patch, str]]:
    """The images of one class, each with its path below the class folder."""
    found = find_sources(class_folder)
    if found.faults:
        raise DataError(found.faults[0].message)
    left_out.merge(found.left_out, class_folder.name)
    patches = []
    for source in found.sources:
        patches += _images_in(source, class_folder, left_out)
    if not patches:
        raise DataError(
            f"{class_folder}: holds no image. Add images of this class, or remove the folder."
        )
    return patches


def _images_in(source: Source, class_folder: Path, left_out: LeftOut) -> list[tuple[Patch, str]]:
    scan = scan_source(source, PatchSelection(all=True))
    if scan.fault is not None:
        raise DataError(scan.fault)
    below = source.path if source.kind == Kind.FOLDER else source.path.with_suffix("")
    place = PurePosixPath(below.relative_to(class_folder).as_posix())
    left_out.merge(scan.left_out, str(class_folder.name / place))
    members = map(scan.members.member, range(len(scan.members)))
    return [(Patch(scan.entry, member), str(place / member.name)) for member in members]


def _state(patch: Patch) -> tuple[int, ...]:
    """What changes with the content of an image, without reading it."""
    member, archive = patch.member, patch.archive
    if archive.kind == Kind.FOLDER:
        try:
            return member.size, Path(archive.full_path, member.name).stat().st_mtime_ns
        except OSError:  # told when it is read
            return (member.size,)
    return member.size, member.crc32, member.offset, archive.mtime


def slide_finder(pattern: str | None, folder: Path) -> FindSlide:
    """How the slide of an image is found.

    Args:
        pattern: Regular expression, whose group ``slide``, or all of it, is the slide; None: what
            the name states by the conventions of `adios_tme.data.names`, and the folders or the
            archive inside the class folder.
        folder: For messages.
    """
    if pattern is None:
        return _by_convention
    rule = re.compile(pattern)

    def find(place: str) -> str:
        match = rule.search(place)
        slide = match and (match["slide"] if "slide" in rule.groupindex else match[0])
        if not slide:
            raise DataError(
                f"{folder}: --slide-pattern {pattern!r} finds no slide in {printable(place)}. "
                f"Give one that matches every image, such as '^[^_]+_[^_]+'."
            )
        return slide

    return find


def _by_convention(place: str) -> str | None:
    container, _, name = place.rpartition("/")
    return slide_of(container, name).strip("/") or None


class ImageReader:
    """Images of class folders as pixels, read by several threads.

    Args:
        samples: The images.
    """

    def __init__(self, samples: Samples[Patch]) -> None:
        self._samples = samples
        self._of_thread = threading.local()  # what is open in one thread, another could close

    def __call__(self, row: int, needed_px: int | None) -> Pixels:
        """One image (H, W, 3); ``needed_px`` as in `decode_image`.

        Raises:
            DataError: If it cannot be read.
        """
        if not hasattr(self._of_thread, "archives"):
            self._of_thread.archives = OpenArchives()
        archives: OpenArchives = self._of_thread.archives
        try:
            return decode_image(archives.read(self._samples.items[row]), needed_px)
        except CorruptPatchError as error:
            raise DataError(
                f"{self._samples.path}: {printable(self._samples.names[row])} cannot be read "
                f"({error}). Mend or remove it."
            ) from error
