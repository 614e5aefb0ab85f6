"""What names state, by the conventions of the field; what could mean two things stays unknown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adios_tme.data.names import (
    NameFacts,
    coordinates,
    parse_name,
    slide_of,
    states_size,
)

UUID = "F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291"
BARCODE = f"TCGA-3C-AALI-01Z-00-DX1.{UUID}"


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("slide_001_448_x100_y200.png", NameFacts("slide_001", 100, 200, 448)),
        ("patch_001_448_x100_y200.png", NameFacts(None, 100, 200, 448)),
        ("patch_12_x100_y200.png", NameFacts(None, 100, 200)),  # a count, or a size of 12
        ("00112x_00448y.png", NameFacts(None, 112, 448)),
        ("20x_40y.png", NameFacts(None, 20, 40)),  # no magnification
        ("slide/12_x448_y-7.png", NameFacts(None, 448, -7)),
        ("S1_100_200_448_448.png", NameFacts("S1", 100, 200, 448)),
        ("0_448_448_448.png", NameFacts(None, 0, 448, 448)),
        ("S1_100_200_448_300.png", NameFacts()),
        ("S1_100_200_10_10.png", NameFacts()),  # as 2024_05_10_10 is no place
        (
            "S1.svs [x=100,y=200,w=448,h=448].png",
            NameFacts("S1.svs", 100, 200, 448, level0_size=448),
        ),
        (
            "S1 [d=2,x=100,y=200,w=896,h=896].png",
            NameFacts("S1", 100, 200, 448, level0_size=896),
        ),
        ("S1 [d=1.5,x=1,y=2,w=30,h=40,z=1].png", NameFacts("S1", 1, 2)),
        ("S1_files/17/3_5.jpeg", NameFacts()),  # column and row
        ("S1_448_896.png", NameFacts()),
        (f"{BARCODE}_448_x100_y200.png", NameFacts(BARCODE, 100, 200, 448)),
        (f"{BARCODE}_100_200.png", NameFacts(BARCODE)),
        ("TCGA-20X.svs/12_x1_y2.png", NameFacts(None, 1, 2, None, 20)),
        ("20x_256px_32px_overlap/S1/p.png", NameFacts(None, None, None, 256, 20, overlap=32)),
        ("20x/p_40x.png", NameFacts(magnification=40)),
        ("20x_40x/p.png", NameFacts()),
        ("mag20_p.png", NameFacts(magnification=20)),
        ("112x_p.png", NameFacts()),  # no objective
        ("a_2.5x_.png", NameFacts(magnification=2.5)),
        ("a_mpp0.25_448_.png", NameFacts(mpp=0.25)),
        ("a_0.5mpp.png", NameFacts(mpp=0.5)),
        ("a_mpp0.25_0.5mpp.png", NameFacts()),
        ("a_mpp900.png", NameFacts()),
        ("x_448_y_896.png", NameFacts(None, 448, 896)),
        ("tile (x=10, y=20).png", NameFacts(None, 10, 20)),
        ("p_Y20_X10.jpg", NameFacts(None, 10, 20)),
        ("roi_x10_y20/tile_448_x30_y40.png", NameFacts(None, 30, 40, 448)),
        ("roi_x10_y20/tile.png", NameFacts()),
        ("roi_x10_y20_tile_x30_y40.png", NameFacts(None, 30, 40)),
        ("roi_x10_y20\\tile_448_x30_y40.png", NameFacts(None, 30, 40, 448)),
        ("max5_y7.png", NameFacts()),
        ("p_x1.5_y2.5.png", NameFacts()),
    ],
)
def test_conventions(name: str, facts: NameFacts) -> None:
    assert parse_name(name) == facts
    assert coordinates(name) == (None if facts.x is None else (facts.x, facts.y))


def test_folders_around_an_archive_state_its_scale() -> None:
    assert parse_name("p.png", container="cohort_20x/a.zip") == NameFacts(magnification=20)


@pytest.mark.parametrize(
    ("name", "of_448", "of_224"),
    [
        ("patch_001_448_x448_y0.png", True, False),
        ("patch_224_448_x0_y0.png", True, False),  # the 224th
        ("slide_448_224_x0_y0.png", False, True),
        ("a_224_448_x.png", True, True),
        ("p_448_.png", True, False),
        ("tiles_448_20x/1.png", True, False),
        ("tile_448_0012.png", True, False),
        ("tile_448_12.png", None, False),
        ("Sample1_448_896.png", None, False),
        ("Sample1_448_-896.png", None, False),
        ("Sample1_0_448.png", False, False),
        ("S_448_224_448_448.png", True, False),
        ("S_448_448_224_224.png", False, True),
        ("x_448_y_896.png", False, False),
        ("p_x448_y448_.png", False, False),
        ("row_448_col_2.png", False, False),
    ],
)
def test_a_size_stands_as_a_size(name: str, of_448: bool | None, of_224: bool | None) -> None:
    assert (states_size(name, 448), states_size(name, 224)) == (of_448, of_224)


@pytest.mark.parametrize(
    ("container", "name", "slide"),
    [
        ("A/slide_001", "patch_000_448_x0_y0.png", "A/slide_001"),
        ("TCGA-01", "tiles/p.png", "TCGA-01/tiles"),
        ("a", "s1\\0_x0_y0.png", "a/s1"),
        ("a", "s1/roi_x10_y20/0_x0_y0.png", "a/s1"),
        ("tiles", "S1 [x=1,y=2,w=3,h=3].png", "tiles/S1"),
        ("tiles", "S1_0_0_448_448.png", "tiles/S1"),
        ("slide_001", "slide_001_448_x0_y0.png", "slide_001"),
        ("all", f"{BARCODE}_0_448.png", f"all/{BARCODE}"),
        ("b/S1_files/17", "3_5.jpeg", "b/S1"),
        ("a", "S1_files/17/3_5.jpeg", "a/S1"),
    ],
)
def test_slides_are_told_apart_by_where_they_lie(container: str, name: str, slide: str) -> None:
    assert slide_of(container, name) == slide


def test_a_pattern_decides_what_it_has_groups_for() -> None:
    pattern = r"(?P<slide>[^/_]+)_(?P<x>\d+)_(?P<y>\d+)(?:_(?P<mpp>[\d.]+))?\.png$"
    name = "a/S1_448_896_0.5.png"
    assert parse_name(name, pattern) == NameFacts("S1", 448, 896, mpp=0.5)
    assert coordinates(name, pattern) == (448, 896)
    assert slide_of("b/c", name, pattern) == "S1"
    other = "a/p_448_x1_y2.png"  # what the pattern has groups for is not guessed
    assert parse_name(other, pattern) == NameFacts(size=448)
    assert coordinates(other, pattern) is None
    assert slide_of("b/c", other, pattern) == "b/c/a"


def test_a_pattern_reads_backslashes_as_slashes_and_numbers_alone() -> None:
    pattern = r"(?P<slide>\w+)/(?P<x>\w+)_(?P<y>\w+)\.png"
    assert parse_name("s1\\one_2.png", pattern)[:3] == ("s1", None, 2)
    assert coordinates("s1\\one_2.png", pattern) is None


@settings(max_examples=300, deadline=None)
@given(st.text("0149_xyXY[]=,wdhmp-./\\ l", max_size=40), st.sampled_from([448, 1]))
def test_any_name_is_read_or_states_nothing(name: str, side: int) -> None:
    facts = parse_name(name, container="a/b")
    assert all(isinstance(value, int) for value in facts[1:4] if value is not None)
    assert coordinates(name) in (None, facts[1:3])
    assert slide_of("a", name)
    assert states_size(name, side) in (True, False, None)


@pytest.mark.parametrize("part", ["1", "x1_", "_448", "[", " ", "[x=1", "9.", "/_448_"])
def test_long_names_take_no_time(part: str) -> None:
    folder = f"1_1_{'9' * 5000}_{'9' * 5000}/p.png"
    for name in (part * 20_000, f"_{part * 20_000}x1_y2.png", "1" * 5000 + "x_2y.png", folder):
        parse_name(name)
        slide_of("a", name)
        states_size(name, 448)
