"""Polygons of masks, held against shapely, and the files that they stand in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from shapely import Polygon
from shapely.geometry import shape

from adios_tme.inference.geojson import feature_file, feature_of, rings_of

Mask = NDArray[np.bool_]


def polygon(mask: Mask) -> Polygon:
    outline, *holes = rings_of(mask)
    return Polygon(outline, holes)


def disc(radius: float, side: int = 61) -> Mask:
    y, x = np.indices((side, side)) - side // 2
    mask: Mask = x**2 + y**2 <= radius**2
    return mask


def feature(mask: Mask, identity: str = "a/1") -> dict[str, Any]:
    measurements = {"Mask mean": 0.5}
    return feature_of(rings_of(mask), "detection", "Nucleus", (200, 0, 0), measurements, identity)


def test_a_disc_keeps_its_area_and_place() -> None:
    found = polygon(disc(20))
    assert found.area == pytest.approx(disc(20).sum(), rel=0.01)
    assert (found.centroid.x, found.centroid.y) == pytest.approx((30.5, 30.5))  # centre of a pixel


def test_a_single_pixel_is_a_diamond_around_its_centre() -> None:
    assert polygon(np.ones((1, 1), bool)).bounds == (0, 0, 1, 1)


def test_holes_are_kept() -> None:
    ring = disc(20) & ~disc(8)
    assert len(rings_of(ring)) == 2
    assert polygon(ring).area == pytest.approx(ring.sum(), rel=0.02)


def test_of_parts_that_touch_at_a_corner_the_largest_is_taken() -> None:
    mask = np.zeros((5, 5), bool)
    mask[:2, :2] = mask[2:, 2:] = True
    assert polygon(mask).bounds == (2, 2, 5, 5)


def test_a_hole_that_opens_at_a_corner_is_no_hole() -> None:
    mask = np.ones((4, 4), bool)
    mask[1, 1] = mask[0, 0] = False
    assert len(rings_of(mask)) == 1


@given(arrays(bool, (9, 9), elements=st.booleans()).filter(lambda mask: bool(mask.any())))
def test_any_mask_gives_a_valid_polygon(mask: Mask) -> None:
    found = shape(feature(mask)["geometry"])
    assert found.is_valid
    assert found.area > 0


def test_a_feature_is_what_qupath_reads() -> None:
    found = feature(disc(3))
    assert found["type"] == "Feature"
    assert found["properties"] == {
        "objectType": "detection",
        "classification": {"name": "Nucleus", "color": [200, 0, 0]},
        "measurements": {"Mask mean": 0.5},
    }
    for ring in found["geometry"]["coordinates"]:
        assert ring[0] == ring[-1]
        assert ring == np.round(ring, 2).tolist()


def test_ids_follow_from_the_place_alone() -> None:
    assert feature(disc(3))["id"] == feature(disc(5))["id"]
    assert feature(disc(3))["id"] != feature(disc(3), "a/2")["id"]


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_a_file_holds_all_features(tmp_path: Path, name: str, count: int) -> None:
    contents = []
    for _ in range(2):
        with feature_file(tmp_path / name) as writer:
            for number in range(count):
                writer.add([feature(disc(3), f"a/{number}")])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    text = gzip.decompress(contents[0]) if name.endswith(".gz") else contents[0]
    collection = json.loads(text)
    assert collection["type"] == "FeatureCollection"
    assert len({each["id"] for each in collection["features"]}) == count


def test_a_file_that_was_not_finished_is_absent(tmp_path: Path) -> None:
    broken = {"geometry": object()}
    with pytest.raises(TypeError), feature_file(tmp_path / "a.geojson") as writer:
        writer.add([feature(disc(3)), broken])
    assert list(tmp_path.iterdir()) == []
