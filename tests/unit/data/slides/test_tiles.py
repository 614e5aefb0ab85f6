"""Where tiles lie, and how a row of the index holds one."""

from __future__ import annotations

import numpy as np
import pytest

from adios_tme.data.names import parse_name
from adios_tme.data.slides.tiles import (
    aligned,
    directory_of_tiles,
    grid,
    place_of,
    places_of,
    share_of_tissue,
    tile_name,
    tile_of,
)


def test_tiles_fill_what_holds_them_whole() -> None:
    places = grid((1000, 500), side=200, step=200)
    assert places.tolist() == [[x, y] for y in (0, 200) for x in (0, 200, 400, 600, 800)]
    assert grid((199, 500), side=200, step=200).shape == (0, 2)
    assert grid((200, 200), side=200, step=200).tolist() == [[0, 0]]


def test_tiles_overlap_and_do_not_drift() -> None:
    assert grid((400, 200), side=200, step=100)[:, 0].tolist() == [0, 100, 200]
    x = grid((10_000, 100), side=100, step=99.6)[:, 0]
    assert x.tolist() == [round(number * 99.6) for number in range(len(x))]
    assert 10_000 - 100 - 99.6 < x[-1] <= 10_000 - 100


def test_places_stand_on_the_pixels_of_their_level() -> None:
    places = np.array([[0, 1], [7, 8], [99, 101]])
    assert aligned(places, 4).tolist() == [[0, 0], [4, 8], [96, 100]]
    assert aligned(places, 1).tolist() == places.tolist()
    uneven = aligned(np.arange(0, 50_000, 449)[:, None], 4.0003) / 4.0003
    assert np.abs(uneven - uneven.round()).max() <= 0.5 / 4 + 1e-3


def test_the_share_of_tissue_is_that_of_the_pixels_below() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((40, 60)) > 0.5
    places = grid((600, 400), side=100, step=50)
    expected = [mask[y // 10 : y // 10 + 10, x // 10 : x // 10 + 10].mean() for x, y in places]
    np.testing.assert_allclose(share_of_tissue(places, 100, mask, (10, 10)), expected)


def test_tiles_smaller_than_a_pixel_of_the_overview_have_a_share() -> None:
    mask = np.array([[True, False], [False, False]])
    places = grid((100, 100), side=10, step=10)
    share = share_of_tissue(places, 10, mask, (50, 50)).reshape(10, 10)
    assert set(np.unique(share)) == {0.0, 1.0}
    assert share[:5, :5].mean() > 0.7
    assert share[6:].sum() == 0


@pytest.mark.parametrize("icc", [True, False])
def test_a_row_gives_its_tile_back(icc: bool) -> None:
    places = np.array([[0, 0], [123_456, 7], [1 << 20, 987_654]])
    directory = directory_of_tiles(places, side=1793, size_px=448, level=2, icc=icc)
    for row, (x, y) in enumerate(places.tolist()):
        member = directory.member(row)
        assert tile_of(member) == (x, y, 1793, 448, 2, icc)
        assert place_of(member) == (x, y)
        assert member.size == 3 * 448 * 448
    np.testing.assert_array_equal(places_of(directory.offset), places)
    assert directory.names.nbytes == 0


@pytest.mark.parametrize("slide", ["a", "slide_1", "CMU-1 (2)", "s_x10_y20", "S_20x"])
def test_names_are_read_as_they_are_meant(slide: str) -> None:
    facts = parse_name(f"{tile_name(slide, 448, 1200, 34, 0.25)}.jpg")
    assert (facts.x, facts.y, facts.size, facts.mpp) == (1200, 34, 448, 0.25)
