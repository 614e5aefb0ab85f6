"""Microns per pixel of a slide: what it states, or what a table says of it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from adios_tme.config.slides import LEAST_MPP, MOST_MPP
from adios_tme.data.csv_rows import csv_rows
from adios_tme.errors import ConfigError, DataError

#: Width and height of a pixel that differ by more are told.
MOST_UNEVEN = 0.02
#: Microns in the units of a TIFF's resolution.
_MICRONS = {"inch": 25400.0, "centimeter": 10000.0}


class Scale(NamedTuple):
    """Microns per pixel of level 0."""

    mpp: float
    """Of both sides; their mean where they differ."""
    source: str
    """What states it."""
    is_uneven: bool = False
    """Whether pixels are noticeably wider than high, or the other way."""


def scale_of(name: str, properties: Mapping[str, str], stated: Mapping[str, float]) -> Scale:
    """The scale of a slide.

    Args:
        name: Of its file, for messages and to find it in the table.
        properties: As its reader gives them.
        stated: The user's table, by name with or without suffix; it wins.

    Raises:
        DataError: If nothing tells it, or what does is implausible.
    """
    for key in (name, Path(name).stem):
        if key in stated:
            return Scale(stated[key], "--mpp-csv")
    found = next(_candidates(properties), None)
    if found is None:
        raise DataError(
            f"{name}: does not state its microns per pixel. "
            f"Give them by --mpp-csv, a table with the columns wsi and mpp."
        )
    source, across, down = found
    mpp = (across + down) / 2
    if not LEAST_MPP <= mpp <= MOST_MPP:
        raise DataError(
            f"{name}: {source} states {mpp:.4g} microns per pixel, which no slide has "
            f"({LEAST_MPP:g} to {MOST_MPP:g}). Give the true value by --mpp-csv."
        )
    return Scale(mpp, source, abs(across - down) > MOST_UNEVEN * mpp)


def _candidates(properties: Mapping[str, str]) -> Iterator[tuple[str, float, float]]:
    """What states a scale, with the width and height of a pixel in microns; surest first."""
    for across, down in (
        ("openslide.mpp-x", "openslide.mpp-y"),
        ("aperio.MPP", "aperio.MPP"),
    ):
        yield from _both(across, properties.get(across), properties.get(down))
    microns = _MICRONS.get(properties.get("tiff.ResolutionUnit", ""))
    if microns is not None:
        densities = (properties.get(f"tiff.{axis}Resolution") for axis in "XY")
        sizes = [microns / number if (number := _number(text)) else None for text in densities]
        yield from _both("the TIFF resolution", *sizes)
    spacing = properties.get("dicom.PixelSpacing", "").replace("\\", " ").split()  # millimetres
    if len(spacing) == 2 and all(map(_number, spacing)):
        down_mm, across_mm = map(float, spacing)
        yield "DICOM's PixelSpacing", 1000 * across_mm, 1000 * down_mm


def _both(
    source: str, across: str | float | None, down: str | float | None
) -> Iterator[tuple[str, float, float]]:
    width, height = _number(across), _number(down)
    if width or height:
        yield source, width or height, height or width


def _number(text: str | float | None) -> float:
    """A number above zero; 0 for anything else."""
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def read_mpp_csv(path: Path | None) -> dict[str, float]:
    """Microns per pixel by the names of slides; none without a table.

    Raises:
        ConfigError: If it cannot be read, or a value is implausible.
    """
    if path is None:
        return {}
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _read(path, state.st_size, state.st_mtime_ns)


@cache
def _read(path: Path, size: int, mtime: int) -> dict[str, float]:
    """Read a table once for all slides of a process, as long as it stays what it is."""
    try:
        rows = list(csv_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error
    if not rows or not {"wsi", "mpp"} <= rows[0].keys():
        raise ConfigError(
            f"mpp_csv: {path} has no columns wsi and mpp with a line below. Add them."
        )
    stated = {}
    for number, row in enumerate(rows, start=2):
        mpp = _number((row["mpp"] or "").replace(",", "."))
        if not LEAST_MPP <= mpp <= MOST_MPP:
            raise ConfigError(
                f"mpp_csv: {row['mpp']!r} is not a plausible number of microns per pixel "
                f"({path}, line {number}). Expected {LEAST_MPP:g} to {MOST_MPP:g}."
            )
        stated[Path((row["wsi"] or "").strip()).name] = mpp
    return stated


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"mpp_csv: {path} cannot be read ({error}). Give a CSV with the columns wsi and mpp."
    )
