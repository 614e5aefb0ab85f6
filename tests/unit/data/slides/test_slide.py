"""Pixels of slides: those that were written, at any scale, from whichever level can be read."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from adios_tme.data.colour import Pixels
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.index import ArchiveEntry
from adios_tme.data.members import Kind
from adios_tme.data.slides import reader as readers
from adios_tme.data.slides.reader import Level, OpenSlideReader, SlideFacts, load_openslide
from adios_tme.data.slides.slide import OpenSlides, Slide
from adios_tme.data.slides.tiles import Tile
from adios_tme.errors import ConfigError
from tests.slides import halved, make_slide, stained

#: Grey levels by which a tile at half scale may differ from the same filter in double precision.
RESIZE_BOUND = 1


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return stained(512, 640)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, pixels: Pixels) -> Path:
    return make_slide(tmp_path_factory.mktemp("slides") / "a.tif", pixels, num_levels=3)


def entry(path: Path) -> ArchiveEntry:
    found = path.stat()
    return ArchiveEntry(str(path), found.st_size, found.st_mtime_ns, Kind.SLIDE)


def test_a_tile_at_native_scale_is_what_was_written(path: Path, pixels: Pixels) -> None:
    read = Slide(path).tile(Tile(x=33, y=101, side=200, size_px=200, level=0))
    np.testing.assert_array_equal(read, pixels[101:301, 33:233])


def test_a_tile_at_the_scale_of_a_level_is_that_level(path: Path, pixels: Pixels) -> None:
    slide = Slide(path)
    assert slide.level_for(2) == 1
    read = slide.tile(Tile(x=64, y=128, side=256, size_px=128, level=1))
    np.testing.assert_array_equal(read, halved(pixels)[64:192, 32:160])


def test_a_tile_at_half_scale_is_an_antialiased_resize(tmp_path: Path, pixels: Pixels) -> None:
    slide = Slide(make_slide(tmp_path / "a.tif", pixels, num_levels=1))
    read = slide.tile(Tile(x=64, y=128, side=256, size_px=128, level=0))
    region = torch.from_numpy(pixels[128:384, 64:320].astype(np.float64)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(region, (128, 128), mode="bicubic", antialias=True)
    difference = expected[0].permute(1, 2, 0).numpy().clip(0, 255) - read
    assert np.abs(difference).max() <= RESIZE_BOUND
    aliased = pixels[128:384:2, 64:320:2].astype(int) - read
    assert np.abs(aliased).mean() > 2  # taking every second pixel is something else


@pytest.mark.parametrize(
    ("downsample", "level"), [(0.5, 0), (1, 0), (1.9, 0), (2, 1), (1.995, 1), (3.9, 1), (9, 2)]
)
def test_the_level_is_at_or_below_the_scale(path: Path, downsample: float, level: int) -> None:
    assert Slide(path).level_for(downsample) == level


class _Faulty:
    """A slide of which some levels cannot be read, and half of what can be is transparent."""

    opened = 0

    def __init__(self, path: Path, bad_levels: tuple[int, ...] = ()) -> None:
        _Faulty.opened += 1
        self.bad_levels = bad_levels
        self.is_broken = False

    def facts(self) -> SlideFacts:
        return SlideFacts((Level(64, 64, 1), Level(32, 32, 2), Level(16, 16, 4)), {}, None)

    def region(self, x: int, y: int, level: int, size: tuple[int, int]) -> Image.Image:
        assert not self.is_broken
        if level in self.bad_levels:
            self.is_broken = True  # as OpenSlide refuses everything after an error
            raise CorruptPatchError(f"level {level} cannot be read (bad tile)")
        image = Image.new("RGBA", size, (100, 50, 150, 255))
        image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
        return image


def test_a_level_that_cannot_be_read_falls_back_to_a_finer_one_with_one_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    slide = Slide(Path("a.svs"), lambda path: _Faulty(path, bad_levels=(1, 2)))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            read = slide.tile(Tile(0, 0, side=32, size_px=8, level=2))
    assert read.shape == (8, 8, 3)
    assert slide.levels_failed == {1, 2}
    assert [record.message for record in caplog.records] == [
        f"a.svs: level {level} cannot be read (bad tile); a finer level is read in its place."
        for level in (2, 1)
    ]


def test_where_no_level_can_be_read_the_tile_is_damaged() -> None:
    slide = Slide(Path("a.svs"), lambda path: _Faulty(path, bad_levels=(0, 1)))
    for _ in range(2):
        with pytest.raises(CorruptPatchError, match=r"level 0 cannot be read \(bad tile\)"):
            slide.tile(Tile(0, 0, side=16, size_px=8, level=1))
    assert slide.tile(Tile(0, 0, side=32, size_px=8, level=2)).shape == (8, 8, 3)


def test_what_is_transparent_is_white() -> None:
    read = Slide(Path("a.svs"), _Faulty).tile(Tile(0, 0, side=8, size_px=8, level=0))
    assert (read[:, :4] == 255).all()
    assert (read[:, 4:] == (100, 50, 150)).all()


@pytest.mark.parametrize("place", [(-1, 0), (0, 400), (600, 0)])
def test_a_tile_outside_its_slide_is_damaged(path: Path, place: tuple[int, int]) -> None:
    with pytest.raises(CorruptPatchError, match="lies outside the slide of 640 x 512 px"):
        Slide(path).tile(Tile(*place, side=128, size_px=128, level=0))


def test_an_overview_is_the_mean_of_what_it_shows(path: Path, pixels: Pixels) -> None:
    overview = Slide(path).overview(8)
    assert overview.shape == (64, 80, 3)
    blocks = pixels.reshape(64, 8, 80, 8, 3).mean(axis=(1, 3))
    assert np.abs(overview - blocks).mean() < 5  # the filter is sharper than the mean


def test_an_overview_in_bands_is_that_in_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Slide(path).overview(8).astype(int)
    monkeypatch.setattr("adios_tme.data.slides.slide._BAND_PIXELS", 1 << 12)
    assert np.abs(Slide(path).overview(8) - whole).mean() < 2


def test_colours_are_converted_only_when_asked_for(tmp_path: Path) -> None:
    pixels = stained(256, 256)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    slide = Slide(
        make_slide(
            tmp_path / "a.tif", pixels, extratags=[(34675, 7, None, profile.tobytes(), True)]
        )
    )
    assert slide.facts.profile is not None
    tile = Tile(0, 0, side=128, size_px=128, level=0)
    np.testing.assert_array_equal(slide.tile(tile), pixels[:128, :128])
    same = slide.tile(tile._replace(icc=True)).astype(int)  # from sRGB to sRGB
    assert np.abs(same - pixels[:128, :128]).max() <= 2


def test_colours_that_are_converted_change(tmp_path: Path) -> None:
    pixels = stained(256, 256)
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The tags of the red and the blue primary are swapped: a scanner of other colours.
    swapped = xyz.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    path = make_slide(tmp_path / "a.tif", pixels, extratags=[(34675, 7, None, swapped, True)])
    read = Slide(path).tile(Tile(0, 0, side=128, size_px=128, level=0, icc=True))
    wanted = pixels[:128, :128, ::-1].astype(int)
    assert np.abs(read - wanted).mean() < 3


@pytest.fixture
def opened(path: Path) -> Iterator[list[Path]]:
    """The slides that are opened, by path."""
    seen: list[Path] = []
    original = OpenSlideReader.__init__

    def init(self: OpenSlideReader, path: Path) -> None:
        seen.append(path)
        original(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenSlideReader, "__init__", init)
        yield seen


def test_slides_stay_open_as_long_as_there_is_room(
    tmp_path: Path, opened: list[Path], pixels: Pixels
) -> None:
    paths = [make_slide(tmp_path / f"{name}.tif", pixels[:256, :256]) for name in "abc"]
    slides, tile = OpenSlides(max_open=2), Tile(0, 0, 64, 64, 0)
    for number in (0, 1, 0, 1, 0, 2, 0, 1):  # the third takes the place of the second
        slides.read(entry(paths[number]), tile)
    assert [path.stem for path in opened] == ["a", "b", "c", "b"]


def test_open_slides_give_back_their_files_when_none_are_left(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [make_slide(tmp_path / f"{name}.tif", pixels[:256, :256]) for name in "ab"]
    slides, tile = OpenSlides(), Tile(0, 0, 64, 64, 0)
    slides.read(entry(paths[0]), tile)
    original = Path.open

    def full(self: Path, *arguments: Any) -> Any:
        if slides._handles:
            raise OSError(errno.EMFILE, "Too many open files")
        return original(self, *arguments)

    monkeypatch.setattr(Path, "open", full)
    np.testing.assert_array_equal(slides.read(entry(paths[1]), tile), pixels[:64, :64])
    assert list(slides._handles) == [str(paths[1])]


def test_a_slide_that_changes_while_it_is_open_is_damaged(tmp_path: Path) -> None:
    path = make_slide(tmp_path / "a.tif", stained(256, 256))
    slides, known = OpenSlides(), entry(path)
    tile = Tile(0, 0, 64, 64, 0)
    slides.read(known, tile)
    make_slide(path, stained(256, 256, seed=1))
    with pytest.raises(CorruptPatchError, match="slide has changed since it was indexed"):
        slides.read(known, tile)
    path.unlink()
    with pytest.raises(CorruptPatchError, match="cannot be opened or read"):
        slides.read(known, tile)


def test_a_process_that_is_forked_opens_its_own(path: Path, opened: list[Path]) -> None:
    slides, tile = OpenSlides(), Tile(0, 0, 64, 64, 0)
    slides.read(entry(path), tile)
    slides._owner = os.getpid() + 1  # as it looks in a child
    slides.read(entry(path), tile)
    assert len(opened) == 2


def crafted(path: Path, **tags: int) -> Path:
    """A slide whose tags say something else than its pixels."""
    make_slide(path, stained(256, 256))
    with tifffile.TiffFile(path, mode="r+") as file:
        for name, value in tags.items():
            file.pages.first.tags[name].overwrite(value, dtype="I")
    return path


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImageWidth": 1 << 30}, "cannot be opened as a slide .Invalid TIFF"),
        ({"TileWidth": 1 << 20, "TileLength": 1 << 20}, "states tiles of 1048576 x 1048576 px"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(
    tmp_path: Path, tags: dict[str, int], message: str
) -> None:
    with pytest.raises(CorruptPatchError, match=message):
        Slide(crafted(tmp_path / "a.tif", **tags))


def test_a_side_that_no_scanner_writes_is_refused() -> None:
    facts = SlideFacts((Level(1 << 21, 256, 1),), {}, None)
    with pytest.raises(CorruptPatchError, match="states 2097152 x 256 px, more than 1048576"):
        readers._check_sizes(facts)


@pytest.mark.parametrize("content", [b"not a slide", b""])
def test_a_file_that_is_no_slide(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(
        CorruptPatchError, match="is no slide that OpenSlide reads, or is cut short"
    ):
        Slide(tmp_path / "a.svs")
    with pytest.raises(CorruptPatchError, match="cannot be opened or read"):
        Slide(tmp_path / "b.svs")


def test_a_missing_package_and_an_old_library_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advice = r"pip install 'adios-tme\[slides\]'"
    load_openslide.cache_clear()
    import openslide

    monkeypatch.setattr(openslide, "__library_version__", "4.0.0")
    with pytest.raises(ConfigError, match=f"OpenSlide 4.0.0 is too old.*{advice}"):
        load_openslide()
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    with pytest.raises(ConfigError, match=f"which cannot be imported. .*{advice}"):
        load_openslide()
    monkeypatch.undo()
    assert readers.load_openslide().__name__ == "openslide"
