"""Pictures of masks and labels: what other programs read, whole or absent, in bounded memory.

Shape legend: N masks, H x W pixels.
"""

from __future__ import annotations

import itertools
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from adios_tme.config.commands.segment import OmeContent
from adios_tme.inference.segment.blocks import Block
from adios_tme.inference.segment.nuclei import Chosen, Nucleus
from adios_tme.inference.segment.ome_tiff import ome_tiff
from adios_tme.inference.segment.tile_store import TileStore, mean, nearest
from adios_tme.inference.segment.view import Box, ImageView
from tests.slides import halved

NUCLEI = Chosen(channel=1, threshold=0.5)
#: Blocks of three tiles and a bit, so that tiles are shared.
CORE_PX, MARGIN_PX = 700, 40


def view_of(width: int, height: int, microns: float | None = 0.5) -> ImageView:
    return ImageView(np.zeros((height, width, 3), np.uint8), microns, None)


def masks_of(width: int, height: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).random((3, height, width), np.float32)
    masks: NDArray[np.float32] = drawn / drawn.sum(axis=0)
    return masks


def block_at(left: int, top: int, masks: NDArray[np.float32]) -> Block:
    """A core with a margin, as far as it lies in the masks of the whole view."""
    size = masks.shape[2], masks.shape[1]
    core = Box(left, top, left + CORE_PX, top + CORE_PX).within(size)
    box = Box(*(core[:2] - np.array(MARGIN_PX)), *(core[2:] + np.array(MARGIN_PX))).within(size)
    part = masks[:, box.top : box.bottom, box.left : box.right]
    return Block(core, box, np.zeros((*part.shape[1:], 3), np.uint8), part)


def blocks_of(masks: NDArray[np.float32]) -> list[Block]:
    return [
        block_at(left, top, masks)
        for top in range(0, masks.shape[1], CORE_PX)
        for left in range(0, masks.shape[2], CORE_PX)
    ]


def nucleus_at(left: int, top: int, side: int = 9) -> Nucleus:
    mask = np.ones((side, side), bool)
    mask[0, 0] = False
    return Nucleus(0.0, 0.0, [], 0.0, None, 1.0, mask, (left, top))


def write(path: Path, content: OmeContent, view: ImageView, blocks: list[Block]) -> Path:
    """A picture with a nucleus at the lower right corner of each core, beyond its edges."""
    with ome_tiff(path, content, view, NUCLEI, 3) as picture:
        for block in blocks:
            corner = block.core.right - 5, block.core.bottom - 5
            inside = corner[0] + 9 <= block.box.right and corner[1] + 9 <= block.box.bottom
            picture.add(block, [nucleus_at(*corner)] if inside else [])
    return path


def test_masks_are_channels_with_halved_levels(tmp_path: Path) -> None:
    masks = masks_of(1501, 1203)
    path = write(tmp_path / "a.ome.tiff", "masks", view_of(1501, 1203), blocks_of(masks))
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert (series.axes, str(series.dtype)) == ("CYX", "uint8")
        levels = [level.asarray() for level in series.levels]
        assert [level.shape for level in levels] == [
            (3, 1203, 1501),
            (3, 601, 750),
            (3, 300, 375),
        ]
        assert [len(page.subifds or ()) for page in file.pages] == [2, 2, 2]
        assert file.is_ome
        assert file.is_bigtiff
        names = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]["Channel"]
        assert [each["Name"] for each in names] == ["Mask 1", "Mask 2 (nuclei)", "Mask 3"]
    np.testing.assert_array_equal(levels[0], (masks * 255).round())
    for finer, coarser in itertools.pairwise(levels):
        expected = halved(np.moveaxis(finer, 0, 2))
        np.testing.assert_array_equal(np.moveaxis(coarser, 0, 2), expected)


def test_labels_cross_blocks_and_tiles(tmp_path: Path) -> None:
    blocks = blocks_of(masks_of(1501, 1203))
    path = write(tmp_path / "a.ome.tiff", "labels", view_of(1501, 1203), blocks)
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert (series.axes, str(series.dtype)) == ("YX", "uint32")
        finest, middle, coarsest = [level.asarray() for level in series.levels]
    expected = np.zeros((1203, 1501), np.uint32)
    for number, left in enumerate((695, 1395), start=1):  # the others reach beyond the picture
        expected[695:704, left : left + 9] = number
        expected[695, left] = 0
    np.testing.assert_array_equal(finest, expected)
    np.testing.assert_array_equal(middle, expected[: 2 * 601 : 2, : 2 * 750 : 2])
    np.testing.assert_array_equal(coarsest, expected[: 4 * 300 : 4, : 4 * 375 : 4])


@pytest.mark.parametrize(("microns", "stated"), [(0.5, "0.5"), (None, None)])
def test_pixels_state_their_size_where_it_is_known(
    tmp_path: Path, microns: float | None, stated: str | None
) -> None:
    blocks = blocks_of(masks_of(600, 600))
    path = write(tmp_path / "a.ome.tiff", "labels", view_of(600, 600, microns), blocks)
    with tifffile.TiffFile(path) as file:
        pixels = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
        coarser = file.series[0].levels[1].keyframe
    assert [str(pixels.get(f"PhysicalSize{axis}")) for axis in "XY"] == [str(stated)] * 2
    assert pixels.get("PhysicalSizeXUnit") == (None if stated is None else "µm")
    per_cm = coarser.get_resolution("CENTIMETER")[0] if stated else None
    assert per_cm == (10_000 if stated else None)


def test_a_resized_image_states_both_sides_of_its_pixels(tmp_path: Path) -> None:
    view = ImageView(np.zeros((64, 101, 3), np.uint8), 0.25, 0.5)
    assert view.size == (50, 32)
    assert view.pixel_um == pytest.approx((0.25 * 101 / 50, 0.5))


def test_equal_pictures_are_equal_bytes(tmp_path: Path) -> None:
    blocks = blocks_of(masks_of(600, 600))
    one, other = (
        write(folder / "a.ome.tiff", "masks", view_of(600, 600), blocks)
        for folder in (Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(2))
    )
    assert one.read_bytes() == other.read_bytes()


def fail_half_way(path: Path, expected: list[Path]) -> None:
    """Take in a block, and fail; what lies there meanwhile is what a kill would leave."""
    with ome_tiff(path, "masks", view_of(600, 600), NUCLEI, 3) as picture:
        picture.add(block_at(0, 0, masks_of(600, 600)), [])
        assert list(path.parent.iterdir()) == expected
        raise InterruptedError


def test_a_picture_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tiff"
    with pytest.raises(InterruptedError):
        fail_half_way(path, [])
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"of before")
    with pytest.raises(InterruptedError):
        fail_half_way(path, [path])
    assert path.read_bytes() == b"of before"


def test_a_thin_picture_has_levels_of_some_pixels(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as file:
        store = TileStore(file, (2100, 3), 1, np.uint8)
        assert store.sizes == [(2100, 3), (1050, 1)]


def peak_bytes(folder: Path, side: int) -> int:
    """Memory at the most, of Python and NumPy, for a picture whose pixels are all written."""
    view = view_of(1, 1)
    view.size = side, side
    part = np.random.default_rng(0).random((1, CORE_PX, CORE_PX), np.float32)
    tracemalloc.start()
    try:
        with ome_tiff(folder / "a.ome.tiff", "masks", view, Chosen(0, 0.5), 1) as picture:
            for top in range(0, side, CORE_PX):
                for left in range(0, side, CORE_PX):
                    core = Box(left, top, left + CORE_PX, top + CORE_PX).within((side, side))
                    shown = part[:, : core.bottom - top, : core.right - left]
                    picture.add(Block(core, core, np.zeros((1, 1, 3), np.uint8), shown), [])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_picture(tmp_path: Path) -> None:
    small, large = (peak_bytes(tmp_path, side) for side in (1400, 5600))
    assert large < 1.1 * small + 100_000
    assert large < 5600 * 5600 / 2


def test_tiles_without_tissue_take_no_room() -> None:
    with tempfile.TemporaryFile() as file:
        store = TileStore(file, (100_000, 80_000), 1, np.uint32)
        store.paint(0, (60_000, 40_000), np.ones((10, 10), np.uint32))
        store.fill_levels(nearest)
        assert len(store.sizes) == 9
        assert file.seek(0, 2) == 9 * 512 * 512 * 4


def test_zeros_of_a_part_leave_what_is_there() -> None:
    with tempfile.TemporaryFile() as file:
        store = TileStore(file, (40, 40), 1, np.uint8)
        store.paint(0, (0, 0), np.array([[1, 1], [1, 1]], np.uint8))
        store.paint(0, (1, 0), np.array([[0, 2], [3, 0]], np.uint8))
        (place,) = store.places(0)
        assert store.tile(place)[:2, :3].tolist() == [[1, 1, 2], [1, 3, 0]]


def test_a_mean_is_rounded() -> None:
    assert mean(np.array([[0, 1], [1, 1]], np.uint8)) == [[1]]
    assert mean(np.array([[255, 255], [255, 255]], np.uint8)) == [[255]]
