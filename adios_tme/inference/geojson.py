"""Objects as QuPath reads them: GeoJSON features, written one by one.

Shape legend: H x W pixels, P points of a ring.
"""

from __future__ import annotations

import gzip
import io
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours

from adios_tme.files import replacing

#: Decimals of coordinates.
DECIMALS = 2
#: Names of ids begin here, so that equal files come of equal input.
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "adios_tme")

Rings = list[NDArray[np.float64]]
"""Outline and holes of an object: x and y (P, 2), the last point the first one again."""
Kind = Literal["detection", "annotation"]


def rings_of(mask_HW: NDArray[np.bool_]) -> Rings:
    """Outline and holes of one object, along the edges of its pixels with cut corners.

    A mask of several parts that touch by no edge gives its largest one. No ring touches itself or
    another: pixels that touch by a corner alone are apart.

    Args:
        mask_HW: The object; not empty.

    Returns:
        In pixels of the mask, whose upper left corner is at (0, 0).
    """
    # Points of a contour are at centres of pixels, and the frame is a pixel wide.
    framed_HW = np.zeros([side + 2 for side in mask_HW.shape], bool)  # np.pad takes as long again
    framed_HW[1:-1, 1:-1] = mask_HW
    contours = [ring[:, ::-1] - 0.5 for ring in find_contours(framed_HW, 0.5)]
    outlines = [ring for ring in contours if _signed_area(ring) > 0]
    if len(outlines) > 1:
        parts, _ = ndimage.label(mask_HW)
        return rings_of(parts == np.bincount(parts[mask_HW]).argmax())
    holes = [ring for ring in contours if _signed_area(ring) < 0]
    return [_without_needless(ring) for ring in (*outlines, *holes)]


def _signed_area(ring_P2: NDArray[np.float64]) -> float:
    x, y = ring_P2.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _without_needless(ring_P2: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed ring without the points that lie on a line with their neighbours."""
    after = np.diff(ring_P2, axis=0)
    before = np.concatenate([after[-1:], after[:-1]])
    kept = ring_P2[:-1][np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9]
    return np.concatenate([kept, kept[:1]])


def feature_of(
    rings: Rings,
    kind: Kind,
    name: str,
    color: tuple[int, int, int],
    measurements: Mapping[str, float],
    identity: str,
) -> dict[str, Any]:
    """A polygon as QuPath has it.

    Args:
        rings: Outline and holes, in pixels of level 0.
        kind: Of object in QuPath.
        name: Of its class.
        color: Of its class.
        measurements: By name.
        identity: What no other object has; equal ones get equal ids.
    """
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_IDS, identity)),
        "geometry": {
            "type": "Polygon",
            "coordinates": [ring.round(DECIMALS).tolist() for ring in rings],
        },
        "properties": {
            "objectType": kind,
            "classification": {"name": name, "color": list(color)},
            "measurements": dict(measurements),
        },
    }


class FeatureWriter:
    """Features of a collection, written as they come.

    Args:
        file: Open for text.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._between = "\n"
        file.write('{"type": "FeatureCollection", "features": [')

    def add(self, features: Iterable[Mapping[str, Any]]) -> None:
        """Write some more."""
        for feature in features:
            self._file.write(self._between + json.dumps(feature, separators=(",", ":")))
            self._between = ",\n"

    def finish(self) -> None:
        """Close the collection."""
        self._file.write("\n]}\n")


@contextmanager
def feature_file(path: Path) -> Iterator[FeatureWriter]:
    """Write a FeatureCollection that appears whole or not at all; packed if its name ends in .gz.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as partial, partial.open("wb") as raw:
        # Without a name and time in its head, equal files are equal bytes.
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(packed, encoding="utf-8") as text:
            writer = FeatureWriter(text)
            yield writer
            writer.finish()
