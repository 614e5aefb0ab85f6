"""Labelled features from HDF5 files, as `adios-tme embed` and TRIDENT write them.

A file is a slide: ``features`` (N, D) and, where labels are of patches, ``coords`` (N, 2). Labels
stand in a CSV file with the columns ``slide`` and ``label``, and ``x`` and ``y`` where patches have
labels of their own; for one file alone, ``label`` in the order of the features does.

Shape legend: N patches of a slide, D width.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.probe.samples import Samples
from adios_tme.data.csv_rows import csv_rows
from adios_tme.errors import ConfigError, DataError

SUFFIXES = (".h5", ".hdf5")

Feature = NDArray[np.float32]
Labels = dict[str, list[tuple[tuple[int, int] | None, str]]]
"""Of each slide: places and labels; one without a place is that of the whole slide."""

_COLUMNS = "label, slide, and x and y for labels of patches"


def holds_features(path: Path) -> bool:
    """Whether a path is an HDF5 file, or a folder with some inside."""
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for suffix in SUFFIXES for file in path.rglob(f"*{suffix}"))
    return [path] if path.suffix.lower() in SUFFIXES and path.is_file() else []


class _Slide(NamedTuple):
    name: str
    features: Feature
    coords: list[tuple[int, int]] | None
    encoder: str


def read_features(path: Path, labels_csv: Path) -> Samples[Feature]:
    """The features of a file or of all files below a folder, with their labels.

    Raises:
        ConfigError: If h5py is not installed.
        DataError: If a file is damaged, features do not fit each other, or labels do not fit them.
    """
    labels, digest = _read_labels(labels_csv), hashlib.sha256(labels_csv.read_bytes())
    found: list[tuple[Feature, str, str, str]] = []
    encoders: dict[str, str] = {}
    width = num_unlabelled = 0
    seen: set[str] = set()
    for file in _files(path):
        slide = _read_slide(file)
        if slide.name in seen:
            raise DataError(f"{path}: two files are called {slide.name}. Give one folder of them.")
        seen.add(slide.name)
        digest.update(repr((slide.name, file.stat().st_size, file.stat().st_mtime_ns)).encode())
        width = width or slide.features.shape[1]
        encoders.setdefault(slide.encoder, slide.name)
        if slide.features.shape[1] != width or len(encoders) > 1:
            raise DataError(
                f"{file}: its features are of another encoder than those before it "
                f"({slide.encoder or 'not named'}, {slide.features.shape[1]} wide; first "
                f"{next(iter(encoders)) or 'not named'}, {width} wide). Give one encoder's."
            )
        own = labels.get(slide.name, labels.get("", []))
        labelled = list(_labelled(slide, own, file)) if own else []
        num_unlabelled += not labelled
        found += labelled
    if not found:
        raise DataError(
            f"{labels_csv}: names none of the slides in {path} (such as {sorted(seen)[0]}). "
            f"Write the names of the files without suffix into the column slide."
        )
    items, names, classes, slides = zip(*found, strict=True)
    facts = {"kind": "features", "path": str(path.resolve()), "files": digest.hexdigest()}
    facts["encoder"] = next(iter(encoders))
    notes = [f"{num_unlabelled} of {len(seen)} files have no label and are not used."]
    is_alone = len(seen) == 1  # which tells nothing apart
    return Samples(
        path,
        items,
        names,
        classes,
        tuple(None for _ in slides) if is_alone else slides,
        facts,
        tuple(notes if num_unlabelled else ()),
    )


def _labelled(
    slide: _Slide, own: list[tuple[tuple[int, int] | None, str]], file: Path
) -> Iterator[tuple[Feature, str, str, str]]:
    """Features with a name, a label and a slide each."""
    features_ND = slide.features
    if len(own) == 1 and own[0][0] is None:
        yield features_ND.mean(axis=0), slide.name, own[0][1], slide.name
        return
    if own[0][0] is None:
        if len(own) != len(features_ND):
            raise DataError(
                f"{file}: has {len(features_ND)} features and {len(own)} labels without a place. "
                f"Give a label for each feature in their order, or columns x and y."
            )
        for number, (feature, (_, label)) in enumerate(zip(features_ND, own, strict=True)):
            yield feature, f"{slide.name} row {number}", label, slide.name
        return
    if slide.coords is None:
        raise DataError(f"{file}: holds no coords, and labels have x and y. Embed it again.")
    if len({place for place, _ in own}) < len(own):
        raise DataError(f"{file}: a place has two labels. Give one label for each x and y.")
    rows = {place: row for row, place in enumerate(slide.coords)}
    for place, label in own:
        if place is None or place not in rows:
            raise DataError(
                f"{file}: has no feature at {place}, for which there is a label. "
                f"Give x and y as in coords, for every label of the slide."
            )
        yield features_ND[rows[place]], f"{slide.name} at {place[0]}, {place[1]}", label, slide.name


def _read_labels(path: Path) -> Labels:
    """Labels by slide; those of a file without the column stand under the empty name."""
    labels: Labels = {}
    try:
        reader = csv_rows(path)
        columns = list(reader.fieldnames or ())
        if "label" not in columns or ("x" in columns) is not ("y" in columns):
            found = ", ".join(columns) or "no columns"
            raise DataError(f"{path}: has {found}. Give the columns {_COLUMNS}.")
        for line in reader:
            place = (_whole(line["x"]), _whole(line["y"])) if "x" in columns else None
            if not line["label"]:
                raise DataError(
                    f"{path}: line {reader.line_num} has no label. Write one, or drop the line."
                )
            labels.setdefault(line.get("slide") or "", []).append((place, line["label"]))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Give --labels a CSV file."
        ) from error
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV of labels ({error}). Columns: {_COLUMNS}.") from error
    return labels


def _whole(pixels: str) -> int:
    """A coordinate, also as tables of floating-point numbers have it, such as 448.0."""
    number = float(pixels)
    if not number.is_integer():
        raise ValueError(f"{pixels} is no whole number of pixels")
    return int(number)


def _read_slide(path: Path) -> _Slide:
    try:
        h5py: Any = import_module("h5py")
    except ImportError as error:
        raise ConfigError(
            f"{path}: h5py is not installed, and HDF5 files need it. "
            f"Install it with pip install 'adios-tme[hdf5]'."
        ) from error
    advice = "Write it again with adios-tme embed."
    try:
        with h5py.File(path, "r") as file:
            features = file["features"]
            encoder = features.attrs.get("encoder", file.attrs.get("encoder", ""))
            features_ND = np.asarray(features[()], dtype=np.float32)
            coords = file["coords"][()] if "coords" in file else None
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: holds no features that can be read ({error}). {advice}"
        ) from error
    if features_ND.ndim == 3 and len(features_ND) == 1:  # as some writers leave them
        features_ND = features_ND[0]
    if features_ND.ndim != 2 or not len(features_ND) or not np.isfinite(features_ND).all():
        raise DataError(
            f"{path}: its features are of shape {features_ND.shape}, expected finite numbers "
            f"(N, D). {advice}"
        )
    places = None if coords is None else [(int(x), int(y)) for x, y in coords]
    return _Slide(path.stem, features_ND, places, str(encoder))
