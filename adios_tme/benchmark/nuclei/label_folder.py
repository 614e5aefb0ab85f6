"""Labelled images for the nuclei benchmark: what a data set gives, and folders of images.

Shape legend: H x W pixels, 3 channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.label_map import VOID, read_label_map
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import decode_file
from adios_tme.data.images import files_in, only_images
from adios_tme.data.junk import is_junk
from adios_tme.data.left_out import LeftOut, Reason
from adios_tme.errors import DataError

LABEL_SUFFIXES = (".png", ".tif", ".tiff")


@dataclass(frozen=True)
class LabelledImage:
    """An image and its nuclei."""

    name: str
    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    labels: NDArray[np.int32]
    """(H, W) instance ids, 0 where there is no nucleus, -1 where nobody annotated."""
    tissue: str | None = None
    """Organ, where the data set names it."""


class LabelledImages(Protocol):
    """A data set, read image by image."""

    path: Path
    kind: str
    """Name of the layout."""
    parts: list[str]
    """For each image the part of the data set that it belongs to, such as a fold."""
    microns_per_pixel: float | None
    """Scale of the images, where the data set fixes it."""
    accounts: Accounts
    """What is left out of it."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> LabelledImage:
        """Read one image.

        Raises:
            DataError: If it cannot be read or its label does not fit.
        """


class Accounts:
    """What is left out of a data set: found when it was opened, and in each image that was read.

    An image that is read again is counted once.
    """

    def __init__(self) -> None:
        self.opening = LeftOut()
        self._images: dict[int, LeftOut] = {}

    def of(self, number: int) -> LeftOut:
        """A new account of an image."""
        self._images[number] = LeftOut()
        return self._images[number]

    def total(self) -> LeftOut:
        """All of it, as far as images were read."""
        total = LeftOut()
        for account in (self.opening, *(self._images[number] for number in sorted(self._images))):
            total.merge(account)
        return total


class LabelFolder:
    """A folder with ``images/`` and ``labels/`` of the same names.

    Args:
        path: The folder.

    Raises:
        DataError: If the layout is another, or an image has no label.
    """

    kind = "folder"
    microns_per_pixel: float | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.accounts = Accounts()
        for part in ("images", "labels"):
            if not (path / part).is_dir():
                raise DataError(
                    f"{path}: expected the folders images/ and labels/, found no {part}/. "
                    f"Give the folder that holds both."
                )
        images = only_images(files_in(path / "images"), self.accounts.opening)
        if not images:
            raise DataError(
                f"{path / 'images'}: holds no image. Put PNG, JPEG or TIFF files there."
            )
        labels = Names(files_in(path / "labels"))
        pairs = [(path / "images" / name, self._label_of(name, labels)) for name in images]
        self._pairs = [(image, path / "labels" / label) for image, label in pairs]
        self._count_labels_alone(labels, {label for _, label in pairs})
        self.parts = [""] * len(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> LabelledImage:
        image, label = self._pairs[number]
        pixels, labels = read_image(image), read_label_map(label)
        if pixels.shape[:2] != labels.shape:
            raise DataError(
                f"{label}: is {_size(labels)} px, its image {_size(pixels)} px. "
                f"Write the label at the size of the image."
            )
        count_void(labels, label, self.accounts.of(number))
        return LabelledImage(image.stem, pixels, labels)

    def _label_of(self, image: str, labels: Names) -> str:
        stem = Path(image).stem
        for suffix in LABEL_SUFFIXES:
            label = labels.find(stem + suffix)
            if label is not None:
                return label
        raise DataError(
            f"{self.path / 'images' / image}: has no label. Expected labels/{stem}.png (or .tif); "
            f"add it, or remove the image."
        )

    def _count_labels_alone(self, labels: Names, taken: set[str]) -> None:
        for name in labels.all:
            if name not in taken:
                reason: Reason = "junk" if is_junk(name) else "label_alone"
                self.accounts.opening.add(reason, [f"labels/{name}"])


class Names:
    """File names, found whether or not their capitals are as asked for."""

    def __init__(self, names: Iterable[str]) -> None:
        self.all = list(names)
        self._exact = set(self.all)
        self._folded: dict[str, str] = {}
        for name in self.all:
            self._folded.setdefault(name.casefold(), name)

    def find(self, name: str) -> str | None:
        """A name as it is written, the one with the same capitals first."""
        return name if name in self._exact else self._folded.get(name.casefold())


def count_void(labels: NDArray[np.int32], source: Path, left_out: LeftOut) -> None:
    """Count a label map in which nobody annotated some pixels.

    Raises:
        DataError: If nobody annotated a single one.
    """
    void = labels == VOID
    if void.all():
        raise DataError(
            f"{source}: holds numbers below 0 alone, so nothing is annotated. "
            f"Remove the label and its image."
        )
    if void.any():
        left_out.add("void", [source.name])


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a file of a data set to RGB (H, W, 3).

    Raises:
        DataError: If it cannot be read or decoded.
    """
    try:
        return decode_file(path)
    except CorruptPatchError as error:
        raise DataError(f"{path}: {error}. Replace or remove the image and its label.") from error


def _size(array: NDArray[np.generic]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
