"""Labelled patches: a folder for each class, with images, archives and folders of them inside."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from adios_tme.benchmark.probe.samples import Samples
from adios_tme.config.slides import SlideTiles
from adios_tme.data.decode import Pixels, is_image_name
from adios_tme.data.image_list import (
    NO_TILES,
    ListedImage,
    find_images,
    list_images,
    read_image,
)
from adios_tme.data.index import Patch
from adios_tme.data.junk import is_junk
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import Kind, printable
from adios_tme.data.names import slide_of
from adios_tme.data.reader import OpenSources
from adios_tme.errors import DataError

FindSlide = Callable[[str], str | None]
"""From an image's path below its class folder to its slide."""

_ADVICE = "Give a folder that holds a folder of images for each class."


def read_class_folders(
    folder: Path,
    slide_pattern: str | None = None,
    own: Sequence[Path] = (),
    tiles: SlideTiles = NO_TILES,
) -> Samples[Patch]:
    """The images of all classes, or with a scale the tiles of their slides, listed and not read.

    Args:
        folder: Holds a folder for each class.
        slide_pattern: See `slide_finder`.
        own: Folders to which we write, and which are no classes.
        tiles: Which tiles of slides.

    Raises:
        ConfigError: If slides need a package or file that is missing.
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
        for image in _images_of(class_folder, left_out, tiles):
            slide = find_slide(image.path)
            state = _state(image.patch)
            digest.update(repr((class_folder.name, image.path, slide, state)).encode())
            name = f"{class_folder.name}/{image.path}"
            found.append((image.patch, name, class_folder.name, slide))
    patches, names, labels, slides = zip(*found, strict=True)
    facts = {"kind": "images", "path": str(folder.resolve()), "files": digest.hexdigest()}
    return Samples(
        folder, patches, names, labels, slides, facts, tuple(notes if beside else ()), left_out
    )


def _images_of(class_folder: Path, left_out: LeftOut, tiles: SlideTiles) -> list[ListedImage]:
    """The images of one class, or the tiles of its slides."""
    found = find_images(class_folder, tiles)
    if found.faults:
        raise DataError(found.faults[0].message)
    left_out.merge(found.left_out, class_folder.name)
    images = list(list_images(found.sources, class_folder, left_out, tiles))
    if not images:
        what = "image" if tiles.mpp is None else "tile of tissue"
        raise DataError(
            f"{class_folder}: holds no {what}. Add images of this class, or remove the folder."
        )
    return images


def _state(patch: Patch) -> tuple[int, ...]:
    """What changes with the content of an image, without reading it."""
    member, archive = patch.member, patch.archive
    if archive.kind == Kind.FOLDER:
        try:
            return member.size, Path(archive.full_path, member.name).stat().st_mtime_ns
        except OSError:  # told when it is read
            return (member.size,)
    if archive.kind == Kind.SLIDE:
        return *member[1:], archive.size, archive.mtime
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
        if not hasattr(self._of_thread, "sources"):
            self._of_thread.sources = OpenSources()
        return read_image(self._of_thread.sources, self._samples.items[row], needed_px)
