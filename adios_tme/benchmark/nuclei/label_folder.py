"""Labelled images for the nuclei benchmark: what a data set gives, and folders of images.

Shape legend: H x W pixels, 3 channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import SUFFIXES, decode_file
from adios_tme.errors import DataError

LABEL_SUFFIXES = (".png", ".tif", ".tiff")
_EIGHT_BIT_MODES = ("L", "P", "1")
_INTEGER_MODES = ("I;16", "I;16B", "I;16L", "I")


@dataclass(frozen=True)
class LabelledImage:
    """An image and its nuclei."""

    name: str
    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    labels: NDArray[np.int32]
    """(H, W) instance ids, 0 where there is no nucleus."""
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

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> LabelledImage:
        """Read one image.

        Raises:
            DataError: If it cannot be read or its label does not fit.
        """


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
        for part in ("images", "labels"):
            if not (path / part).is_dir():
                raise DataError(
                    f"{path}: expected the folders images/ and labels/, found no {part}/. "
                    f"Give the folder that holds both."
                )
        images = sorted(p for p in (path / "images").iterdir() if p.suffix.lower() in SUFFIXES)
        if not images:
            raise DataError(
                f"{path / 'images'}: holds no image. Put PNG, JPEG or TIFF files there."
            )
        self._pairs = [(image, self._label_of(image)) for image in images]
        self.parts = [""] * len(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> LabelledImage:
        image, label = self._pairs[number]
        pixels, labels = read_image(image), _read_labels(label)
        if pixels.shape[:2] != labels.shape:
            raise DataError(
                f"{label}: is {_size(labels)} px, its image {_size(pixels)} px. "
                f"Write the label at the size of the image."
            )
        return LabelledImage(image.stem, pixels, labels)

    def _label_of(self, image: Path) -> Path:
        for suffix in LABEL_SUFFIXES:
            label = self.path / "labels" / f"{image.stem}{suffix}"
            if label.is_file():
                return label
        raise DataError(
            f"{image}: has no label. Expected labels/{image.stem}.png (or .tif); "
            f"add it, or remove the image."
        )


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a file of a data set to RGB (H, W, 3).

    Raises:
        DataError: If it cannot be read or decoded.
    """
    try:
        return decode_file(path)
    except CorruptPatchError as error:
        raise DataError(f"{path}: {error}. Replace or remove the image and its label.") from error


def _read_labels(path: Path) -> NDArray[np.int32]:
    try:
        with Image.open(path) as image:
            mode = image.mode
            labels = np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: is not an image ({error}). Write the label again.") from error
    if mode in _EIGHT_BIT_MODES:
        raise DataError(
            f"{path}: has 8 bits, which hold 255 nuclei at most. "
            f"Write instance ids as a 16-bit greyscale PNG or TIFF."
        )
    if mode not in _INTEGER_MODES:
        raise DataError(
            f"{path}: is a colour image (mode {mode}). "
            f"Write instance ids as a 16-bit greyscale PNG or TIFF."
        )
    return labels.astype(np.int32)


def _size(array: NDArray[np.generic]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
