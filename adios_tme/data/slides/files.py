"""Which files are whole slides, and which files besides them decide how they are cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from adios_tme.config.slides import TISSUE_RULES, SlideTiling
from adios_tme.data.slides.coordinates import load_h5py
from adios_tme.data.slides.reader import load_openslide
from adios_tme.data.slides.scale import read_mpp_csv
from adios_tme.data.slides.tissue import check_tissue
from adios_tme.errors import ConfigError

DICOM_SUFFIX = ".dcm"
SLIDE_SUFFIXES = frozenset(
    (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".czi", DICOM_SUFFIX)
)
#: Files that are slides or images; what is in them tells.
TIFF_SUFFIXES = frozenset((".tif", ".tiff"))

#: Settings that tell the tiles of an index from others, in the order in which its digest has them.
_DIGESTED = ("mpp", "mpp_csv", "tissue", "min_tissue", "overlap", "coordinates", "icc")

#: SeriesInstanceUID (0020,000E) with its type, as it stands in an explicit little-endian header.
_SERIES = b"\x20\x00\x0e\x00UI"
_DICOM_HEADER_BYTES = 1 << 16


def first_of_each_series(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Slides by the file that opens each: of a DICOM series, the first by name."""
    seen = set()
    for name in sorted(names):
        if name.lower().endswith(DICOM_SUFFIX):
            series = _series(folder / name)
            if series in seen:
                continue
            seen.add(series)
        yield name


def _series(path: Path) -> bytes:
    """What tells the series of a DICOM file; its own name where that cannot be found."""
    try:
        with path.open("rb") as file:
            start = file.read(_DICOM_HEADER_BYTES)
    except OSError:  # told when it is opened
        return path.name.encode()
    at = start.find(_SERIES) + len(_SERIES)
    if at < len(_SERIES):
        return path.name.encode()
    return start[at + 2 : at + 2 + int.from_bytes(start[at : at + 2], "little")]


def refuse_without_scale(path: Path) -> None:
    """Raise where one slide is given as if it were an image.

    Raises:
        ConfigError: If it is a slide, which is read at a stated scale alone.
    """
    if path.suffix.lower() in SLIDE_SUFFIXES and path.is_file():
        raise ConfigError(
            f"{path}: is a whole slide, which is read at a stated scale alone. "
            f"Give the microns per pixel at which the model was or shall be trained, such as "
            f"--mpp 0.5."
        )


def check_tiling(tiling: SlideTiling, slides: list[Path]) -> None:
    """Raise before any work unless slides can be cut as the settings say.

    Raises:
        ConfigError: If a package, file or folder is missing, or one file of regions is given for
            several slides.
    """
    if not slides:
        return
    load_openslide()
    read_mpp_csv(tiling.mpp_csv)
    check_tissue(tiling.tissue)
    if len(slides) > 1 and tiling.tissue not in TISSUE_RULES and Path(tiling.tissue).is_file():
        raise ConfigError(
            f"tissue: {tiling.tissue} is the regions of one slide, and there are {len(slides)}. "
            f"Give a folder with SLIDE.geojson for each."
        )
    if tiling.coordinates is not None:
        load_h5py()
        if not tiling.coordinates.is_dir():
            raise ConfigError(
                f"coordinates: {tiling.coordinates} is not a folder. "
                f"Give the one that holds the HDF5 files."
            )


def tiling_digest(tiling: SlideTiling) -> str:
    """Tells settings apart, and the states of files that they name; empty without a scale.

    Where those files lie, and how their paths are written, does not count.
    """
    if tiling.mpp is None:
        return ""
    tissue = None if tiling.tissue in TISSUE_RULES else Path(tiling.tissue)
    names = {
        "mpp_csv": tiling.mpp_csv and Path(tiling.mpp_csv.name),
        "tissue": tissue.name if tissue else tiling.tissue,
        "coordinates": tiling.coordinates and Path(tiling.coordinates.name),
    }
    stated = tiling.model_copy(update=names).model_dump(mode="json")
    in_order = {name: stated[name] for name in _DIGESTED}
    text = json.dumps(in_order, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode())
    for given in (tiling.mpp_csv, tissue, tiling.coordinates):
        for path in _files(given):
            found = path.stat()
            digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(given: Path | None) -> list[Path]:
    if given is None or not given.exists():
        return []
    return (
        sorted(path for path in given.rglob("*") if path.is_file()) if given.is_dir() else [given]
    )
