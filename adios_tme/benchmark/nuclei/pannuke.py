"""PanNuke as it is released (Gamper et al. 2019 and 2020, arXiv:2003.10778).

Shape legend: n images, H x W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.label_folder import LabelledImage
from adios_tme.errors import DataError

#: Channels of a mask that hold instance ids: neoplastic, inflammatory, connective, dead and
#: epithelial; the last one is the background.
NUM_CLASSES = 5
LAYOUT = (
    "'Fold 1/images/fold1/images.npy' with 'Fold 1/masks/fold1/masks.npy', "
    "or 'fold1/images.npy' with 'fold1/masks.npy'"
)
_FOLD = re.compile(r"fold[ _]?(\d+)", re.IGNORECASE)


class Fold(NamedTuple):
    """Where the arrays of one fold lie."""

    name: str
    images: Path
    masks: Path
    types: NDArray[np.str_] | None
    num_images: int


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
        self._folds = list(_find_folds(path))
        self.parts = [fold.name for fold in self._folds for _ in range(fold.num_images)]
        self._firsts = np.cumsum([0, *(fold.num_images for fold in self._folds)])

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> LabelledImage:
        which = int(np.searchsorted(self._firsts, number, side="right")) - 1
        fold, row = self._folds[which], number - int(self._firsts[which])
        # Mapped anew for each image: a mapping that stays keeps every page it has read.
        pixels = np.asarray(_map(fold.images)[row]).round().clip(0, 255).astype(np.uint8)
        labels = merge_classes(np.asarray(_map(fold.masks)[row]))
        tissue = None if fold.types is None else str(fold.types[row])
        return LabelledImage(f"{fold.name} {row}", pixels, labels, tissue)


def merge_classes(mask_HWC: NDArray[np.generic]) -> NDArray[np.int32]:
    """One map of instance ids from a mask with a channel of ids for each class.

    Args:
        mask_HWC: (H, W, 6) of any number format; the last channel is the background.

    Returns:
        (H, W) ids that differ also between classes, 0 for the background.
    """
    merged = np.zeros(mask_HWC.shape[:2], dtype=np.int32)
    for channel in range(NUM_CLASSES):
        ids = mask_HWC[..., channel].astype(np.int32)
        merged = np.where(ids > 0, ids + int(merged.max()), merged)
    return merged


def _find_folds(path: Path) -> Iterator[Fold]:
    folders = [
        (int(match[1]), folder)
        for folder in (path.iterdir() if path.is_dir() else ())
        if folder.is_dir() and (match := _FOLD.fullmatch(folder.name))
    ]
    if not folders:
        found = ", ".join(sorted(p.name for p in path.iterdir())[:5]) if path.is_dir() else "none"
        raise DataError(f"{path}: holds no fold of PanNuke. Expected {LAYOUT}; found {found}.")
    for number, folder in sorted(folders):
        yield _open_fold(folder, number)


def _open_fold(folder: Path, number: int) -> Fold:
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
    types_path = images_path.with_name("types.npy")
    types = _map(types_path) if types_path.is_file() else None
    if types is not None and types.shape != images.shape[:1]:
        raise DataError(f"{types_path}: names {types.shape} tissues for {len(images)} images.")
    names = None if types is None else types.astype(np.str_)
    return Fold(folder.name, images_path, masks_path, names, len(images))


def _find_array(folder: Path, kind: str, number: int) -> Path:
    candidates = [folder / kind / f"fold{number}" / f"{kind}.npy", folder / f"{kind}.npy"]
    candidates.append(folder / kind / f"{kind}.npy")
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"{folder}: has no {kind}.npy. Expected {LAYOUT}.")


def _map(path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a plain array ({error}). Download it again.") from error
    return array
