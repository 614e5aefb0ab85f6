"""Which tiles of a slide are taken, and what its user is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from adios_tme.config.slides import SlideTiling
from adios_tme.data.slides.plan import SlidePlan, plan_slide
from adios_tme.data.slides.slide import Slide
from adios_tme.data.slides.tiles import Tile
from adios_tme.errors import DataError
from tests.slides import make_slide, on_glass, stained
from tests.unit.data.slides.test_tissue import geojson, square

#: Of level 0, at 2 microns a pixel: an overview pixel is four of them.
TISSUE = (slice(128, 384), slice(256, 640))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    return make_slide(folder / "a.tif", on_glass(512, 768, TISSUE), mpp=2, num_levels=2)


def plan(path: Path, size_px: int = 64, **tiling: Any) -> SlidePlan:
    return plan_slide(path, SlideTiling(**({"mpp": 2.0} | tiling)), size_px)


def inside(left: int, top: int, right: int, bottom: int, step: int) -> list[list[int]]:
    return [[x, y] for y in range(top, bottom, step) for x in range(left, right, step)]


def test_tiles_cover_the_tissue(path: Path) -> None:
    found = plan(path)
    assert (found.side, found.level) == (64, 0)
    assert found.places.tolist() == inside(256, 128, 640, 384, 64)
    assert found.notices.lines() == []


@pytest.mark.parametrize(("mpp", "side", "level"), [(4.0, 128, 1), (1.0, 32, 0), (6.0, 192, 1)])
def test_the_scale_decides_on_side_and_level(path: Path, mpp: float, side: int, level: int) -> None:
    found = plan(path, mpp=mpp, tissue="none")
    assert (found.side, found.level) == (side, level)
    assert found.places.tolist() == inside(0, 0, 768 - side + 1, 512 - side + 1, side)
    assert found.tissue is None


def test_overlap_brings_tiles_closer(path: Path) -> None:
    found = plan(path, overlap=32, tissue="none")
    assert found.places.tolist() == inside(0, 0, 768 - 63, 512 - 63, 32)


@pytest.mark.parametrize(("share", "count"), [(0.01, 6), (0.5, 4), (0.9, 2)])
def test_the_least_share_of_tissue_is_what_is_asked_for(
    path: Path, share: float, count: int
) -> None:
    # Tiles of 256 px: the two in the middle are all tissue below or above, others a half or none.
    assert len(plan(path, 256, min_tissue=share, overlap=0).places) <= count
    assert len(plan(path, 64, min_tissue=share).places) == 24


def test_drawn_regions_take_the_place_of_colour(path: Path, tmp_path: Path) -> None:
    regions = {"type": "Polygon", "coordinates": [square(0, 0, 128)]}
    file = geojson(tmp_path / "a.geojson", regions)
    for tissue in (file, tmp_path):
        assert plan(path, tissue=str(tissue)).places.tolist() == inside(0, 0, 128, 128, 64)
    file.rename(tmp_path / "b.geojson")
    with pytest.raises(DataError, match=r"a\.tif: has no regions in .*a\.geojson"):
        plan(path, tissue=str(tmp_path))


def coordinates(folder: Path, places: list[list[int]], side: int = 64) -> Path:
    with h5py.File(folder / "a_patches.h5", "w") as file:
        file.create_dataset("coords", data=np.array(places)).attrs["patch_size_level0"] = side
    return folder


def test_coordinates_of_others_take_the_place_of_tissue(path: Path, tmp_path: Path) -> None:
    places = [[3, 5], [704, 448]]
    assert plan(path, coordinates=coordinates(tmp_path, places)).places.tolist() == places


@pytest.mark.parametrize(
    ("places", "side", "message"),
    [
        (
            [[0, 0], [705, 0], [0, -1]],
            64,
            "a_patches.h5: 2 tiles lie outside the slide of 768 x 512 px (first: x 705, y 0). "
            "Give the coordinates of this slide.",
        ),
        (
            [[0, 0]],
            128,
            "a_patches.h5: its tiles are 128 px wide in level 0, and 64 px at the scale asked for "
            "are 64. Give --mpp 4, or another --patch-size-px.",
        ),
    ],
)
def test_coordinates_of_another_slide_or_scale(
    path: Path, tmp_path: Path, places: list[list[int]], side: int, message: str
) -> None:
    with pytest.raises(DataError) as refused:
        plan(path, coordinates=coordinates(tmp_path, places, side))
    assert str(refused.value) == message


def test_what_is_odd_about_a_slide_is_told(tmp_path: Path) -> None:
    glass = make_slide(tmp_path / "glass.tif", np.full((256, 256, 3), 244, np.uint8), mpp=2)
    assert [reason for reason, _ in plan(glass).notices.items()] == ["no_tile"]
    uneven: dict[str, Any] = {"resolution": (5000, 4000), "resolutionunit": "CENTIMETER"}
    odd = make_slide(tmp_path / "odd.tif", stained(256, 256), mpp=None, **uneven)
    found = plan(odd, mpp=1.0)
    assert [reason for reason, _ in found.notices.items()] == ["uneven_scale", "too_coarse"]


def test_a_scale_far_from_every_level_is_refused(tmp_path: Path) -> None:
    slide = make_slide(tmp_path / "a.tif", stained(256, 256), mpp=0.05)
    with pytest.raises(DataError, match=r"a\.tif: has no level near the scale .* 179200 x 179200"):
        plan(slide, 448, mpp=20)


def test_a_truncated_slide_is_named(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as refused:
        plan(tmp_path / "cut.tif")
    assert str(refused.value) == (
        "cut.tif: is no slide that OpenSlide reads, or is cut short. "
        "Copy or export the slide again, or remove it."
    )


def test_a_level_that_is_damaged_is_told_and_a_finer_one_read(path: Path, tmp_path: Path) -> None:
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        coarse = file.pages[1]
        for at, count in zip(coarse.dataoffsets, coarse.databytecounts, strict=True):
            content[at : at + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(content)
    found = plan(tmp_path / "a.tif", mpp=4.0)
    assert found.notices.count("unread_level") == 1
    tile = Tile(256, 128, side=128, size_px=64, level=found.level)
    damaged, whole = (Slide(place).tile(tile) for place in (tmp_path / "a.tif", path))
    assert found.level == 1
    assert np.abs(damaged.astype(int) - whole).mean() < 5  # the filter is sharper than the mean


def test_a_slide_with_damaged_tiles_is_named_and_left_out_if_they_are_many(
    path: Path, tmp_path: Path
) -> None:
    content = bytearray(path.read_bytes())
    content[1000 : len(content) // 2] = bytes(len(content) // 2 - 1000)
    (tmp_path / "hole.tif").write_bytes(content)
    some = plan(tmp_path / "hole.tif", tissue="none")
    assert 1 <= some.notices.count("unread_tile") <= 4  # the upper half of the tissue, a quarter
    with pytest.raises(
        DataError, match=r"^hole\.tif: \d+ of 16 tiles that were tried cannot be read"
    ):
        plan(tmp_path / "hole.tif")
