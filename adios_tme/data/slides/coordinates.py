"""Files of others that say where the tiles of a slide are: TRIDENT's and CLAM's HDF5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from adios_tme.data.slides.reader import Level
from adios_tme.data.slides.tiles import Places
from adios_tme.errors import ConfigError, DataError
from adios_tme.files import replacing


class Coordinates(NamedTuple):
    """Tiles as a file has them."""

    places: Places
    side: int
    """In pixels of level 0."""


def load_h5py() -> ModuleType:
    """h5py, imported when it is first needed.

    Raises:
        ConfigError: If it is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise ConfigError(
            "coordinates: files of coordinates are HDF5, which needs h5py. "
            "Install it with pip install 'adios-tme[hdf5]'."
        ) from error
    module: ModuleType = h5py
    return module


def coordinate_file(folder: Path, slide: Path) -> Path:
    """The file of a slide, called as TRIDENT or CLAM does.

    Raises:
        DataError: If there is none.
    """
    for below in (folder, folder / "patches"):
        for name in (f"{slide.stem}_patches.h5", f"{slide.stem}.h5"):
            if (below / name).is_file():
                return below / name
    raise DataError(
        f"{slide.name}: has no coordinates in {folder}. "
        f"Expected {slide.stem}_patches.h5 (TRIDENT) or {slide.stem}.h5 (CLAM) there."
    )


def read_coordinates(path: Path, levels: tuple[Level, ...]) -> Coordinates:
    """Read TRIDENT's or CLAM's file of a slide.

    TRIDENT states the side in level 0 (``patch_size_level0``). CLAM states pixels of a level
    (``patch_size``, ``patch_level``), whose downsampling is taken from the slide; its
    ``custom_downsample`` shrinks the patch after reading, so that the region stays what it is.

    Args:
        path: The file.
        levels: Of the slide.

    Raises:
        ConfigError: If h5py is missing.
        DataError: If it cannot be read or does not state a side.
    """
    try:
        with load_h5py().File(path, "r") as file:
            data = file["coords"]
            stated = {key: _plain(value) for key, value in data.attrs.items()}
            places = np.asarray(data[:])
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path.name}: the dataset coords cannot be read ({_short(error)}). "
            f"Give a file of TRIDENT or CLAM."
        ) from error
    side = _side(path, stated, levels)
    if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind not in "iuf":
        raise DataError(
            f"{path.name}: coords has the shape {places.shape} and not (N, 2). "
            f"Give a file of TRIDENT or CLAM."
        )
    return Coordinates(places.astype(np.int64), side)


def _side(path: Path, stated: Mapping[str, Any], levels: tuple[Level, ...]) -> int:
    side: float | None = stated.get("patch_size_level0")
    if side is None and "patch_size" in stated:
        level = stated.get("patch_level", 0)
        if not 0 <= level < len(levels):
            raise DataError(
                f"{path.name}: states level {level}, and the slide has {len(levels)}. "
                f"Give the file of this slide."
            )
        side = stated["patch_size"] * levels[int(level)].downsample
    if side is None or not side >= 1:
        raise DataError(
            f"{path.name}: states neither patch_size_level0 (TRIDENT) nor patch_size and "
            f"patch_level (CLAM) in the attributes of coords. Write it again with one of them."
        )
    return round(side)


def write_coordinates(
    path: Path,
    places: Places,
    *,
    slide: str,
    slide_size: tuple[int, int],
    side: int,
    size_px: int,
    overlap: int,
) -> None:
    """Write the tiles of a slide as TRIDENT does.

    Args:
        path: The file.
        places: X and y of the tiles (N, 2), in pixels of level 0.
        slide: Name of the slide.
        slide_size: Its width and height in pixels of level 0.
        side: Of a tile in level 0.
        size_px: Side of the image that a tile becomes.
        overlap: Pixels of it that neighbours share.

    Raises:
        ConfigError: If h5py is missing.
        OSError: If it cannot be written.
    """
    h5py = load_h5py()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        data = file.create_dataset("coords", data=places.astype(np.int64))
        data.attrs.update(
            {
                "name": slide,
                "patch_size": size_px,
                "patch_size_level0": side,
                "level0_width": slide_size[0],
                "level0_height": slide_size[1],
                "overlap": overlap,
            }
        )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
