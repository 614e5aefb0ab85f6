"""Generated slides: levels, scale and nuclei are what they should be."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from adios_tme.data import synthetic_slide
from adios_tme.data.slides.scale import scale_of
from adios_tme.data.slides.slide import Slide
from adios_tme.data.synthetic_slide import write_slide

SIDE = 1104


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide_001.tif"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_slide, "BLOCK_PX", 256)
        write_slide(path, SIDE)
    return path


def test_levels_show_the_same_at_their_scales(path: Path) -> None:
    slide = Slide(path)
    sizes = [(level.width, level.height) for level in slide.facts.levels]
    assert sizes == [(1104, 1104), (276, 276), (69, 69)]
    assert scale_of("a", slide.facts.properties, {}).mpp == 0.25
    fine = slide.read((0, 0), (SIDE, SIDE), (SIDE, SIDE)).astype(float)
    for level, side in ((1, 276), (2, 69)):
        coarse = slide.read((0, 0), (SIDE, SIDE), (side, side), level=level)
        means = fine.reshape(side, SIDE // side, side, SIDE // side, 3).mean(axis=(1, 3))
        difference = coarse.mean(axis=2) - means.mean(axis=2)
        assert np.abs(difference).mean() < 3  # JPEG; a shift by one pixel gives 8


def test_the_table_names_dark_nuclei_inside_the_tissue(path: Path) -> None:
    with path.with_name("slide_001_nuclei.csv").open() as file:
        nuclei = [(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)]
    assert 200 < len(nuclei) < 3000
    pixels = Slide(path).read((0, 0), (SIDE, SIDE), (SIDE, SIDE)).mean(axis=2)
    centres = [pixels[int(y), int(x)] for x, y in nuclei]
    tissue = pixels[400:700, 400:700]
    assert np.mean(centres) < tissue.mean() - 30
    radius = [np.hypot((x - 552) / (0.40 * SIDE), (y - 552) / (0.34 * SIDE)) for x, y in nuclei]
    assert max(radius) < 1.05
    assert pixels[:50].min() > 220  # glass


def test_without_imagecodecs_it_is_packed_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_slide, "BLOCK_PX", 256)
    monkeypatch.setattr(synthetic_slide, "TISSUE_AXES", (0.1, 0.1))
    monkeypatch.setattr(synthetic_slide, "find_spec", lambda name: None)
    write_slide(tmp_path / "a.tif", 1024)
    assert importlib.util.find_spec("imagecodecs") is not None
    glass = Slide(tmp_path / "a.tif").read((0, 0), (100, 100), (100, 100))
    assert abs(glass.mean() - synthetic_slide.GLASS) < 1
