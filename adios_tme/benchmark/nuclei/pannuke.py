"""PanNuke as it is released (Gamper et al. 2019 and 2020, arXiv:2003.10778).

Shape legend: n images, H x W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.label_folder import Accounts, LabelledImage, count_void
from adios_tme.benchmark.nuclei.label_map import VOID, instance_ids
from adios_tme.data.colour import scale_to_bytes
from adios_tme.data.left_out import LeftOut
from adios_tme.errors import DataError

#: Channels of a mask that hold instance ids: neoplastic, inflammatory, connective, dead and
#: epithelial; the last one is the background.
NUM_CLASSES = 5
LAYOUT = (
    "'Fold 1/images/fold1/images.npy' with 'Fold 1/masks/fold1/masks.npy', "
    "or 'fold1/images.npy' with 'fold1/masks.npy'"
)
MOST_BRIGHT = 255
#: Images by which the range of an array is told.
NUM_JUDGED = 8
_RANGE_ADVICE = "Save images as 0 to 255, as PanNuke is released."
_FOLD = re.compile(r"fold[ _]?(\d+)", re.IGNORECASE)


class Fold(NamedTuple):
    """Where the arrays of one fold lie."""

    name: str
    images: Path
    masks: Path
    types: NDArray[np.str_] | None
    num_images: int
    scale: int
    """What its images are multiplied by to reach from 0 to 255."""


class PanNuke:
    """All folds below a folder, one image after the other.

    Args:
        path: Folder that holds ``Fold 1`` (also ``Fold1``, ``Fold_1``, ``fold1``) and so on.

    Raises:
        DataError: If there is no fold, or one is incomplete.
    """

    kind = "pannuke"
    microns_per_pixel: float | None = 0.25

    def __init__(self, path: Path) -> None:
        self.path = path
        self.accounts = Accounts()
        self._folds = list(_find_folds(path, self.accounts.opening))
        self.parts = [fold.name for fold in self._folds for _ in range(fold.num_images)]
        self._firsts = np.cumsum([0, *(fold.num_images for fold in self._folds)])

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> LabelledImage:
        which = int(np.searchsorted(self._firsts, number, side="right")) - 1
        fold, row = self._folds[which], number - int(self._firsts[which])
        account = self.accounts.of(number)
        # Mapped anew for each image: a mapping that stays keeps every page it has read.
        pixels = _eight_bits(np.asarray(_map(fold.images)[row]), fold, row)
        try:
            labels = merge_classes(np.asarray(_map(fold.masks)[row]))
        except ValueError as error:
            raise DataError(f"{fold.masks}: image {row} {error}. Download it again.") from error
        tissue = None if fold.types is None else str(fold.types[row])
        count_void(labels, fold.masks, account)
        return LabelledImage(f"{fold.name} {row}", pixels, labels, tissue)


def merge_classes(mask_HWC: NDArray[np.generic]) -> NDArray[np.int32]:
    """One map of instance ids from a mask with a channel of ids for each class.

    Args:
        mask_HWC: (H, W, 6) of any number format; the last channel is the background.

    Returns:
        (H, W) ids that differ also between classes, 0 for the background, -1 where a class has a
        number below 0.

    Raises:
        ValueError: If its numbers are no ids.
    """
    merged = np.zeros(mask_HWC.shape[:2], dtype=np.int32)
    void = np.zeros(mask_HWC.shape[:2], dtype=bool)
    for channel in range(NUM_CLASSES):
        ids = instance_ids(mask_HWC[..., channel])
        void |= ids == VOID
        merged = np.where(ids > 0, ids + int(merged.max()), merged)
    merged[void] = VOID
    return merged


def _eight_bits(pixels_HWC: NDArray[Any], fold: Fold, row: int) -> NDArray[np.uint8]:
    scaled = pixels_HWC * fold.scale if fold.scale > 1 else pixels_HWC
    levels = scaled.round()
    if not (levels.min() >= 0 and levels.max() <= MOST_BRIGHT):
        raise DataError(
            f"{fold.images}: image {row} has values from {pixels_HWC.min():g} to "
            f"{pixels_HWC.max():g}, expected 0 to {MOST_BRIGHT // fold.scale}. {_RANGE_ADVICE}"
        )
    return levels.astype(np.uint8)


def _scale_of(images: NDArray[Any], path: Path, left_out: LeftOut) -> int:
    """What images are multiplied by, told by some that are spread evenly over all."""
    rows = np.linspace(0, len(images) - 1, min(NUM_JUDGED, len(images))).round().astype(int)
    some = [np.asarray(images[row]) for row in rows]
    lowest = min((float(each.min()) for each in some), default=0.0)
    highest = max((float(each.max()) for each in some), default=0.0)
    if images.dtype.kind != "f":
        if highest == 1:
            raise DataError(f"{path}: holds nothing but 0 and 1, which is black. {_RANGE_ADVICE}")
        return 1
    try:
        scale = scale_to_bytes(lowest, highest)
    except ValueError as error:
        raise DataError(f"{path}: {error}. {_RANGE_ADVICE}") from error
    if scale > 1 and highest > 0:
        left_out.add("rescaled", [str(path)])
    return scale


def _find_folds(path: Path, left_out: LeftOut) -> Iterator[Fold]:
    folders = [
        (int(match[1]), folder)
        for folder in (path.iterdir() if path.is_dir() else ())
        if folder.is_dir() and (match := _FOLD.fullmatch(folder.name))
    ]
    if not folders:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) if path.is_dir() else "none"
        raise DataError(f"{path}: holds no fold of PanNuke. Expected {LAYOUT}; found {found}.")
    for number, folder in sorted(folders):
        yield _open_fold(folder, number, left_out)


def _open_fold(folder: Path, number: int, left_out: LeftOut) -> Fold:
    images_path = _find_array(folder, "images", number)
    images = _map(images_path)
    masks_path = _find_array(folder, "masks", number)
    masks = _map(masks_path)
    if images.ndim != 4 or images.shape[3] != 3:
        raise DataError(f"{images_path}: is {images.shape}, expected (n, H, W, 3).")
    if masks.shape != (*images.shape[:3], NUM_CLASSES + 1):
        raise DataError(
            f"{masks_path}: is {masks.shape}, expected {(*images.shape[:3], NUM_CLASSES + 1)}, "
            f"a channel for each class and one for the background."
        )
    types = _read_types(images_path.with_name("types.npy"), len(images), left_out)
    scale = _scale_of(images, images_path, left_out)
    return Fold(folder.name, images_path, masks_path, types, len(images), scale)


def _read_types(path: Path, num_images: int, left_out: LeftOut) -> NDArray[np.str_] | None:
    """The tissues; None where the file is missing or pickled, which is counted."""
    if not path.is_file():
        return None
    if _is_pickled(path):
        left_out.add("pickled_tissues", [str(path)])
        return None
    types = _map(path)
    if types.shape != (num_images,):
        raise DataError(f"{path}: names {types.shape} tissues for {num_images} images.")
    return types.astype(np.str_)


def _find_array(folder: Path, kind: str, number: int) -> Path:
    candidates = [folder / kind / f"fold{number}" / f"{kind}.npy", folder / f"{kind}.npy"]
    candidates.append(folder / kind / f"{kind}.npy")
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"{folder}: has no {kind}.npy. Expected {LAYOUT}.")


def _map(path: Path) -> NDArray[Any]:
    if _is_pickled(path):
        raise DataError(
            f"{path}: is an array of Python objects, which is not read. If you trust its source, "
            f"np.save(path, np.stack(np.load(path, allow_pickle=True))) converts it."
        )
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a plain array ({error}). Download it again.") from error
    return array


def _is_pickled(path: Path) -> bool:
    """Whether an array holds Python objects, by its header alone; reading them would run code."""
    formats = np.lib.format
    try:
        with path.open("rb") as file:
            is_first = formats.read_magic(file) == (1, 0)
            read = formats.read_array_header_1_0 if is_first else formats.read_array_header_2_0
            _, _, dtype = read(file)
    except (OSError, ValueError, EOFError):
        return False  # no array at all
    return bool(dtype.hasobject)
