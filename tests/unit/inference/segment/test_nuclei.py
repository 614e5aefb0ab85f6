"""Nuclei of images and slides that are larger than a block: the same as at once, each once.

Shape legend: B images, N masks, H x W pixels.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.data.colour import Pixels
from adios_tme.data.slides.slide import Slide
from adios_tme.errors import ConfigError
from adios_tme.inference.segment.blocks import Block, Grid, blocks_of, cores_of
from adios_tme.inference.segment.choose import choose
from adios_tme.inference.segment.nuclei import Chosen, Nucleus, nuclei_by_block
from adios_tme.inference.segment.view import Box, ImageView, SlideView, View
from adios_tme.inference.sliding_window import MaskPredictor
from tests.slides import make_slide

SIDE = 32
#: Blocks of 128 pixels, so that a small image has many borders.
GRID = Grid(step=16, core=128, margin=48)
SPACING = 21
NUCLEI = Chosen(channel=1, threshold=0.5)


class Darkness:
    """A mask model: background and what is dark, each pixel with those around it in its window."""

    img_size = SIDE
    normalise = SimpleNamespace(mean=torch.zeros(1))

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        dark_BHW = 1 - images_BCHW.mean(dim=1)
        around = F.avg_pool2d(dark_BHW[:, None], 3, 1, 1)[:, 0]
        context = 0.9 + 0.1 * dark_BHW.mean(dim=(1, 2), keepdim=True)
        dark = (around * context).clamp(0, 1)
        return torch.stack([1 - dark, dark], dim=1)


predict = MaskPredictor(cast(Any, Darkness()), windows=True)


def discs(height: int, width: int, radius: int = 6) -> tuple[Pixels, NDArray[np.float64]]:
    """Dark discs on white, and their centres (N, 2)."""
    rng = np.random.default_rng(0)
    y, x = np.indices((height, width)) + 0.5
    pixels = np.full((height, width, 3), 245, np.uint8)
    places = [
        (left + rng.uniform(-1, 1), top + rng.uniform(-1, 1))
        for top in range(12, height - 12, SPACING)
        for left in range(12, width - 12, SPACING)
    ]
    for centre in places:
        pixels[np.hypot(x - centre[0], y - centre[1]) <= radius] = (60, 20, 110)
    return pixels, np.array(places)


def nuclei(view: View, grid: Grid = GRID) -> list[Nucleus]:
    blocks = blocks_of(view, cores_of(view, grid), grid, predict)
    return [nucleus for found in nuclei_by_block(blocks, view, NUCLEI) for nucleus in found]


def assert_each_is_found_once(found: list[Nucleus], places: NDArray[np.float64]) -> None:
    centres = np.array([(nucleus.x, nucleus.y) for nucleus in found])
    distances = np.linalg.norm(centres[:, None] - places[None], axis=-1)
    assert (distances < 3).sum(axis=0).tolist() == [1] * len(places)
    assert len(found) == len(places)


def test_every_nucleus_of_an_image_is_found_once() -> None:
    pixels, places = discs(420, 530)
    to_border = np.abs((places + 64) % 128 - 64)
    assert (to_border.min(axis=1) < 6).sum() > 30  # lie across a border of two blocks
    assert_each_is_found_once(nuclei(ImageView(pixels, 0.25, None)), places)


def test_blocks_are_as_the_whole_image_at_once() -> None:
    pixels, _ = discs(200, 290)
    view = ImageView(pixels, 0.25, None)
    (whole,) = blocks_of(view, [Box(0, 0, 290, 200)], GRID, predict)
    cores = cores_of(view, GRID)
    assert len(cores) == 6
    for block in blocks_of(view, cores, GRID, predict):
        core, box = block.core, block.box
        there = block.masks[:, core.top - box.top :, core.left - box.left :]
        there = there[:, : core.bottom - core.top, : core.right - core.left]
        expected = whole.masks[:, core.top : core.bottom, core.left : core.right]
        np.testing.assert_array_equal(there, expected)


@pytest.mark.parametrize(("mpp", "scale"), [(0.25, 0.25), (0.2, 0.25), (0.25, 0.5)])
def test_every_nucleus_of_a_slide_is_found_once(tmp_path: Path, mpp: float, scale: float) -> None:
    pixels, places = discs(400, 500)
    factor = max(1, int(scale / mpp))
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    path = make_slide(tmp_path / "a.tif", pixels, mpp=mpp, num_levels=2)
    view = SlideView(Slide(path), mpp, scale, GRID.step, None)
    assert view.microns_per_pixel == pytest.approx(scale, rel=0.02)
    assert_each_is_found_once(nuclei(view), places * factor)


def test_parts_of_a_slide_agree_where_they_overlap(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    path = make_slide(tmp_path / "a.tif", pixels, mpp=0.25, num_levels=2)
    view = SlideView(Slide(path), 0.25, 0.43, 16, None)
    whole = view.read(Box(0, 0, *view.size))
    for box in (Box(64, 32, 160, 144), Box(0, 48, 200, 300), Box(320, 240, *view.size)):
        expected = whole[box.top : box.bottom, box.left : box.right]
        np.testing.assert_array_equal(view.read(box), expected)


def test_a_view_far_coarser_than_its_level_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8)
    slide = Slide(make_slide(tmp_path / "a.tif", pixels, mpp=0.25))
    view = SlideView(slide, 0.25, 0.9, 16, None)
    box = Box(5, 20, 180, view.size[1])
    whole = view.read(box)
    sizes: list[int] = []

    def read(place: tuple[int, int], extent: tuple[int, int], size: tuple[int, int]) -> Pixels:
        sizes.append(extent[0] * extent[1])
        return Slide.read(slide, place, extent, size)

    monkeypatch.setattr(slide, "read", read)
    monkeypatch.setattr("adios_tme.inference.segment.view.READ_PIXELS", 250_000)
    np.testing.assert_array_equal(view.read(box), whole)
    assert len(sizes) > 3
    assert max(sizes) <= 250_000


def test_glass_is_not_looked_at(tmp_path: Path) -> None:
    pixels, places = discs(300, 512)
    path = make_slide(tmp_path / "a.tif", pixels, mpp=0.25)
    tissue = np.zeros((4, 4), bool)
    tissue[:, :2] = True
    view = SlideView(Slide(path), 0.25, 0.25, GRID.step, tissue)
    assert max(core.right for core in cores_of(view, GRID)) == 256
    tissue[:] = False
    tissue[1, 1] = True
    assert cores_of(view, GRID) == [Box(128, 64, 256, 128), Box(128, 128, 256, 160)]
    tissue[:, :2] = True
    assert_each_is_found_once(nuclei(view), places[places[:, 0] < 256])
    assert view.area_mm2 == pytest.approx(300 * 256 * 0.25**2 / 1e6)


def test_a_block_is_let_go_once_its_nuclei_are_found() -> None:
    view = ImageView(discs(420, 530)[0], 0.25, None)
    masks: list[weakref.ref[Any]] = []
    num_there = []

    def noted(block: Block) -> Block:
        masks.append(weakref.ref(block.masks))
        num_there.append(sum(each() is not None for each in masks))
        return block

    blocks = map(noted, blocks_of(view, cores_of(view, GRID), GRID, predict))
    taken: list[tuple[Box, int]] = []
    found = nuclei_by_block(
        blocks, view, NUCLEI, lambda block, some: taken.append((block.core, len(some)))
    )
    counts = [len(some) for some in found]
    assert taken == list(zip(cores_of(view, GRID), counts, strict=True))
    assert len(num_there) == 20
    assert max(num_there) == 2  # it, and the one before, at which the thread may still be


def test_what_goes_wrong_in_the_thread_is_told() -> None:
    view = ImageView(discs(100, 100)[0], 0.25, None)
    blocks = blocks_of(view, cores_of(view, GRID), GRID, predict)

    def take(block: Block, some: list[Nucleus]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(nuclei_by_block(blocks, view, NUCLEI, take))


def test_measurements_are_in_pixels_of_the_image_and_in_microns() -> None:
    pixels, _ = discs(100, 100)
    plain = nuclei(ImageView(pixels, 0.25, None))
    shrunk = nuclei(ImageView(pixels, 0.25, 0.3, origin=(1000, 2000), level0_zoom=2))
    assert len(plain) == len(shrunk)
    for one in plain:
        there = np.array([1000 + 2 * one.x, 2000 + 2 * one.y])
        other = min(shrunk, key=lambda each: float(np.hypot(*(there - (each.x, each.y)))))
        assert one.area_um2 == pytest.approx(one.area_px * 0.0625)
        assert other.area_um2 == pytest.approx(one.area_um2, rel=0.2)
        assert other.area_px == pytest.approx(4 * one.area_px, rel=0.2)
        assert (other.x, other.y) == pytest.approx(there, abs=1.5)
        middle = (other.rings[0].min(axis=0) + other.rings[0].max(axis=0)) / 2
        assert np.abs(middle - (other.x, other.y)).max() < 2


def test_without_a_scale_areas_are_in_pixels_alone() -> None:
    view = ImageView(discs(100, 100)[0], None, None)
    assert {nucleus.area_um2 for nucleus in nuclei(view)} == {None}
    assert view.area_mm2 is None


def test_the_channel_of_the_haematoxylin_is_chosen() -> None:
    view = ImageView(discs(100, 150)[0], 0.25, None)
    chosen, correlation = choose([lambda: iter([view])], GRID, predict, None)
    assert chosen.channel == 1
    assert correlation is not None
    assert correlation > 0.9
    assert 0.2 < chosen.threshold < 0.7


def test_no_such_channel_is_refused() -> None:
    view = ImageView(np.full((64, 64, 3), 250, np.uint8), 0.25, None)
    with pytest.raises(ConfigError, match="no mask goes with the haematoxylin"):
        choose([lambda: iter([view])], GRID, predict, None)
    with pytest.raises(ConfigError, match=r"channel=3 is beyond the 2 masks of the model\."):
        choose([lambda: iter([view])], GRID, predict, 2)


def test_margins_hold_objects_of_the_stated_reach() -> None:
    grid = Grid.of(224, 0.5)
    assert grid == Grid(step=112, core=2128, margin=224)
    assert Grid.of(64, 0.25).margin - 32 >= 100  # 25 microns beyond half a window
