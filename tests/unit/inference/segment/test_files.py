"""Files of nuclei: what was found is on the disk while the rest is still to come."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from adios_tme.inference.geojson import rings_of
from adios_tme.inference.segment.files import nuclei_files
from adios_tme.inference.segment.nuclei import Nucleus

NUM_NUCLEI = 2000
#: What files keep in memory before they write it.
BUFFERS = 1 << 15


def nucleus(number: int) -> Nucleus:
    y, x = np.indices((15, 15)) - 7
    mask = x**2 + y**2 <= 36
    rings = [ring + np.array([number, 2 * number]) for ring in rings_of(mask)]
    return Nucleus(number + 7.5, 2 * number + 7.5, rings, mask.sum(), 7.0, 0.5, mask, (number, 0))


def test_nuclei_are_on_the_disk_before_the_last_one_comes(tmp_path: Path) -> None:
    geojson, table = tmp_path / "a.geojson", tmp_path / "a.csv"
    on_disk = []
    with nuclei_files(geojson, table, "a") as files:
        for number in range(NUM_NUCLEI):
            files.add([nucleus(number)])
            on_disk.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    ids = [each["id"] for each in json.loads(geojson.read_text())["features"]]
    with table.open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ids
    features, rows = (path.read_text().splitlines()[1:] for path in (geojson, table))
    lines = zip(features[:NUM_NUCLEI], rows, strict=True)
    written = np.cumsum([len(feature) + len(row) for feature, row in lines])
    assert written[-1] > 10 * BUFFERS
    assert (written - on_disk).max() < BUFFERS
    assert files.num_nuclei == NUM_NUCLEI
