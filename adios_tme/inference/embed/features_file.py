"""The features of one slide as a file: HDF5 as TRIDENT writes it, or safetensors.

Shape legend: N patches, D width of a feature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adios_tme.config.commands.embed import FeatureFormat
from adios_tme.errors import ConfigError, DataError
from adios_tme.files import replacing

SUFFIXES: dict[FeatureFormat, str] = {"hdf5": ".h5", "safetensors": ".safetensors"}
#: Attributes that TRIDENT keeps with the features; all others stand with the coordinates.
_OF_FEATURES = ("name", "savetodir", "encoder", "patches_digest", "num_left_out")
#: Rows of a compressed or extended file that are read at once.
_CHUNK_ROWS = 1024

Attribute = str | int | float


@dataclass(frozen=True)
class SlideFeatures:
    """What the file of a slide holds."""

    features: NDArray[np.floating]
    """(N, D)."""
    coords: NDArray[np.int64] | None = None
    """X and y in pixels, (N, 2); None: the names state none."""
    names: tuple[str, ...] | None = None
    """Of the patches, kept where there are no coordinates to tell them by."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def check_format(kind: FeatureFormat) -> None:
    """Raise unless files of a kind can be written here.

    Raises:
        ConfigError: If h5py is missing.
    """
    if kind == "hdf5":
        _h5py()


def write_features(path: Path, slide: SlideFeatures) -> None:
    """Write a file, HDF5 or safetensors by its name; it is whole or as it was.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        if path.suffix == SUFFIXES["safetensors"]:
            _write_safetensors(partial, slide)
        else:
            _write_hdf5(partial, slide)


def read_features(path: Path) -> SlideFeatures:
    """Read the features of a slide, from here or from TRIDENT.

    Args:
        path: ``.safetensors``, or HDF5.

    Raises:
        ConfigError: If h5py is missing.
        DataError: If the file is damaged or of another kind.
    """
    path = Path(path)
    is_safetensors = path.suffix == SUFFIXES["safetensors"]
    try:
        return _read_safetensors(path) if is_safetensors else _read_hdf5(path)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "holds no features"
        raise DataError(
            f"{path}: {reason}, or cannot be read. "
            f"Give a file of adios-tme embed or of TRIDENT with the data set features."
        ) from error


def read_attributes(path: Path) -> dict[str, Attribute]:
    """What a file states of its slide, without its features; nothing where it is damaged."""
    try:
        if path.suffix == SUFFIXES["safetensors"]:
            with safe_open(path, "numpy") as file:
                return _parsed(file.metadata())[1]
        with _h5py().File(path, "r", locking=False) as file:
            return _attributes(file)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, SafetensorError):
        return {}


def _h5py() -> ModuleType:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ConfigError(
            "format=hdf5 needs h5py. Install it with pip install 'adios-tme[hdf5]', "
            "or use --format safetensors."
        ) from error
    module: ModuleType = h5py
    return module


def _write_hdf5(path: Path, slide: SlideFeatures) -> None:
    h5py = _h5py()
    try:
        # The file is this process's alone; locks fail on many network file systems.
        with h5py.File(path, "w", locking=False) as file:
            features = _add(file, "features", slide.features)
            described = features
            if slide.coords is not None:
                described = _add(file, "coords", slide.coords)
            if slide.names is not None:
                names = [name.encode("utf-8", "backslashreplace") for name in slide.names]
                file.create_dataset("names", data=names, dtype=h5py.string_dtype())
            for name, value in slide.attributes.items():
                features_have = name in _OF_FEATURES
                (features if features_have else described).attrs[name] = value
            for name in ("name", "savetodir"):
                if name in slide.attributes:
                    described.attrs[name] = slide.attributes[name]
    except RuntimeError as error:  # HDF5's word for a disk that is full while it closes a file
        raise OSError(str(error)) from error


def _add(file: Any, name: str, values: NDArray[Any]) -> Any:
    """A data set that tools can lengthen, as TRIDENT's are."""
    chunks = (min(max(1, len(values)), _CHUNK_ROWS), values.shape[1])
    return file.create_dataset(name, data=values, maxshape=(None, values.shape[1]), chunks=chunks)


def _read_hdf5(path: Path) -> SlideFeatures:
    with _h5py().File(path, "r", locking=False) as file:
        features = np.asarray(file["features"])
        if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
            raise ValueError("features are no matrix")
        coords = np.asarray(file["coords"], dtype=np.int64) if "coords" in file else None
        names = tuple(file["names"].asstr()[:]) if "names" in file else None
        return _fitting(SlideFeatures(features, coords, names, _attributes(file)))


def _attributes(file: Any) -> dict[str, Attribute]:
    found = dict(file["coords"].attrs) if "coords" in file else {}
    found |= dict(file["features"].attrs)
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in found.items()
    }


def _write_safetensors(path: Path, slide: SlideFeatures) -> None:
    tensors: dict[str, NDArray[Any]] = {"features": np.ascontiguousarray(slide.features)}
    if slide.coords is not None:
        tensors["coords"] = slide.coords
    metadata = {"attributes": json.dumps(dict(slide.attributes))}
    if slide.names is not None:
        metadata["names"] = json.dumps(slide.names)
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # its word for what the disk refuses
        raise OSError(str(error)) from error


def _read_safetensors(path: Path) -> SlideFeatures:
    with safe_open(path, "numpy") as file:
        names, attributes = _parsed(file.metadata())
        there = set(file.keys())
        coords = file.get_tensor("coords") if "coords" in there else None
        return _fitting(SlideFeatures(file.get_tensor("features"), coords, names, attributes))


def _parsed(
    metadata: Mapping[str, str] | None,
) -> tuple[tuple[str, ...] | None, dict[str, Attribute]]:
    found = metadata or {}
    names = tuple(json.loads(found["names"])) if "names" in found else None
    return names, json.loads(found.get("attributes", "{}"))


def _fitting(slide: SlideFeatures) -> SlideFeatures:
    """Raise ValueError unless there is a row of each for every patch."""
    for rows in (slide.coords, slide.names):
        if rows is not None and len(rows) != len(slide.features):
            raise ValueError("rows do not fit each other")
    return slide
