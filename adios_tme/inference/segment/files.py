"""The files of an input's nuclei: GeoJSON for QuPath and a table, written as nuclei come."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from adios_tme.files import replacing
from adios_tme.inference.geojson import FeatureWriter, feature_file, feature_of
from adios_tme.inference.segment.nuclei import Nucleus

#: Of nuclei in QuPath.
NUCLEUS, NUCLEUS_COLOR = "Nucleus", (200, 0, 0)


@contextmanager
def nuclei_files(geojson: Path, table: Path, name: str) -> Iterator[NucleiFiles]:
    """Write the files of an input, which appear whole or not at all; the GeoJSON last.

    Args:
        geojson: Packed if its name ends in .gz.
        table: The CSV.
        name: Of the input, from which ids follow.

    Raises:
        OSError: If they cannot be written.
    """
    with (
        feature_file(geojson) as features,
        replacing(table) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        yield NucleiFiles(features, file, name)


class NucleiFiles:
    """The open files of an input.

    Args:
        features: The GeoJSON.
        table: The CSV, empty.
        name: Of the input.
    """

    def __init__(self, features: FeatureWriter, table: TextIO, name: str) -> None:
        self.features = features
        self.num_nuclei = 0
        self.area = 0.0
        """Of all nuclei, in square microns where the scale is known, else in pixels."""
        self._name = name
        self._rows = csv.writer(table, lineterminator="\n")
        self._rows.writerow(("id", "x", "y", "area_px", "area_um2", "mask_mean"))

    def add(self, nuclei: Sequence[Nucleus]) -> None:
        """Write some more."""
        for nucleus in nuclei:
            self.num_nuclei += 1
            self.area += nucleus.area_px if nucleus.area_um2 is None else nucleus.area_um2
            feature = _feature(nucleus, f"{self._name}/{self.num_nuclei}")
            self.features.add([feature])
            self._rows.writerow(_row(feature["id"], nucleus))


def _feature(nucleus: Nucleus, identity: str) -> dict[str, Any]:
    measurements = {"Mask mean": round(nucleus.mask_mean, 4)}
    if nucleus.area_um2 is not None:
        measurements["Area um^2"] = round(nucleus.area_um2, 3)
    return feature_of(nucleus.rings, "detection", NUCLEUS, NUCLEUS_COLOR, measurements, identity)


def _row(identity: str, nucleus: Nucleus) -> tuple[str, ...]:
    um2 = "" if nucleus.area_um2 is None else f"{nucleus.area_um2:.3f}"
    return (
        identity,
        f"{nucleus.x:.2f}",
        f"{nucleus.y:.2f}",
        f"{nucleus.area_px:.1f}",
        um2,
        f"{nucleus.mask_mean:.4f}",
    )
