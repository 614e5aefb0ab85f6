"""Tissue by colour and by drawn regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adios_tme.data.slides.tissue import check_tissue, tissue_by_colour, tissue_by_regions
from adios_tme.errors import ConfigError, DataError
from tests.slides import GLASS, on_glass, stained

TISSUE = (slice(30, 90), slice(40, 140))


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("rule", ["otsu", "hsv"])
def test_stained_tissue_is_told_from_glass(rule: str) -> None:
    overview = on_glass(120, 160, TISSUE)
    truth = np.zeros((120, 160), bool)
    truth[TISSUE] = True
    assert overlap(tissue_by_colour(overview, rule), truth) > 0.95


@pytest.mark.parametrize("rule", ["otsu", "hsv"])
@pytest.mark.parametrize("colour", [(40, 160, 60), (30, 150, 200), (10, 10, 10)])
def test_ink_and_black_are_no_tissue(rule: str, colour: tuple[int, int, int]) -> None:
    overview = on_glass(120, 160, TISSUE)
    ink = (slice(5, 20), slice(5, 60))
    overview[ink] = colour
    found = tissue_by_colour(overview, rule)
    assert found[ink].mean() < 0.05
    assert found[TISSUE].mean() > 0.95


@pytest.mark.parametrize("rule", ["otsu", "hsv"])
def test_an_empty_slide_has_none_and_a_full_one_nothing_else(rule: str) -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (100, 100, 1))
    glass = (GLASS + noise).repeat(3, axis=2).astype(np.uint8)
    assert tissue_by_colour(glass, rule).mean() == 0
    assert tissue_by_colour(np.full((40, 40, 3), GLASS, np.uint8), rule).mean() == 0
    assert tissue_by_colour(stained(100, 100), rule).mean() > 0.97


def polygon(*points: tuple[float, float]) -> list[list[float]]:
    return [list(point) for point in (*points, points[0])]


def square(left: float, top: float, side: float) -> list[list[float]]:
    return polygon((left, top), (left + side, top), (left + side, top + side), (left, top + side))


def geojson(path: Path, geometry: dict[str, Any]) -> Path:
    """As QuPath exports it: a collection, with an object that has no area."""
    features = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}},
        {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}},
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_regions_are_filled_and_their_holes_kept(tmp_path: Path) -> None:
    rings = [square(100, 200, 400), square(200, 300, 100)]
    path = geojson(tmp_path / "a.geojson", {"type": "Polygon", "coordinates": rings})
    mask = tissue_by_regions(path, (1000, 800), (100, 80))
    truth = np.zeros((80, 100), bool)
    truth[20:60, 10:50] = True
    truth[30:40, 20:30] = False
    assert overlap(mask, truth) > 0.9
    assert not mask[32:38, 22:28].any()


def test_several_polygons_count_together(tmp_path: Path) -> None:
    parts = [[square(0, 0, 100)], [square(500, 500, 200)]]
    path = geojson(tmp_path / "a.geojson", {"type": "MultiPolygon", "coordinates": parts})
    mask = tissue_by_regions(path, (1000, 800), (100, 80))
    assert mask[2:8, 2:8].all()
    assert mask[52:68, 52:68].all()
    assert not mask[20:40].any()


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (
            {"type": "Polygon", "coordinates": [square(900, 700, 500)]},
            "a.geojson: a region reaches to x 1400, y 700, outside the slide of 1000 x 800 px",
        ),
        ({"type": "Point", "coordinates": [1, 1]}, "a.geojson: holds no polygon."),
        ({"type": "Polygon", "coordinates": [[["a", "b"]]]}, "a.geojson: is not GeoJSON"),
        ({"type": "Polygon"}, "a.geojson: is not GeoJSON"),
    ],
)
def test_regions_of_another_slide_or_none(
    tmp_path: Path, geometry: dict[str, Any], message: str
) -> None:
    path = geojson(tmp_path / "a.geojson", geometry)
    with pytest.raises(DataError, match=message):
        tissue_by_regions(path, (1000, 800), (100, 80))


def test_a_rule_that_nobody_knows() -> None:
    with pytest.raises(ConfigError) as unknown:
        check_tissue("otsus")
    assert str(unknown.value) == (
        "tissue: otsus is no rule, and no such file or folder exists. "
        "Give otsu, hsv, none, a GeoJSON file, or a folder of them."
    )
