"""Archives of tiles: what they hold, what is kept by a second run, and what is left out."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiling, TileConfig
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import index_archives
from adios_tme.data.reader import PatchReader
from adios_tme.data.slides.cut import Cut, cut_slides, estimate
from tests.slides import Pixels, make_slide, stained

SIDE = 64


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return stained(256, 320)


@pytest.fixture
def folder(tmp_path: Path, pixels: Pixels) -> Path:
    make_slide(tmp_path / "slides" / "a.tif", pixels)
    make_slide(tmp_path / "slides" / "below" / "b.tif", pixels[:128])
    return tmp_path / "slides"


def cut(folder: Path, out: Path, **settings: Any) -> tuple[Cut, DatasetIndex]:
    tiling = SlideTiling(mpp=0.25, tissue="none", **settings.pop("tiling", {}))
    config = TileConfig(
        slides_path=folder, out=out, slides=tiling, patch_size_px=SIDE, num_workers=1, **settings
    )
    out.mkdir(exist_ok=True)
    selection = PatchSelection(patch_size_px=SIDE)
    index = index_archives(
        folder, selection, out / "slides_dataset_index.safetensors", tiling=tiling
    ).index
    return cut_slides(index, config), index


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "slides.jsonl").read_text().splitlines()]


def test_an_archive_holds_the_tiles_of_its_slide_stored(
    folder: Path, tmp_path: Path, pixels: Pixels
) -> None:
    done, _ = cut(folder, tmp_path / "out", format="png")
    assert (done.num_archives, done.num_tiles, done.num_kept) == (2, 20 + 10, 0)
    with zipfile.ZipFile(tmp_path / "out" / "a.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist()[6] == "a_64_x64_y64_mpp0.25.png"
        read = np.asarray(Image.open(io.BytesIO(archive.read("a_64_x64_y64_mpp0.25.png"))))
    np.testing.assert_array_equal(read, pixels[64:128, 64:128])
    assert (tmp_path / "out" / "below" / "b.zip").is_file()


def test_archives_are_an_index_of_the_same_tiles(folder: Path, tmp_path: Path) -> None:
    _, slides = cut(folder, tmp_path / "out", format="png")
    archives = index_archives(tmp_path / "out", PatchSelection(patch_size_px=SIDE))
    assert archives.notices() == []
    assert archives.index.patches_per_slide() == slides.patches_per_slide()
    for row in (0, 7, 29):
        one, other = (index.patch(row) for index in (archives.index, slides))
        assert (one.slide, one.coordinates) == (other.slide, other.coordinates)
        written, read = (PatchReader(index).read(row) for index in (archives.index, slides))
        np.testing.assert_array_equal(written, read)


def test_equal_slides_give_equal_archives(folder: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        cut(folder, tmp_path / out)
    first, second = ((tmp_path / out / "a.zip").read_bytes() for out in ("one", "two"))
    assert first == second


def test_the_record_says_what_an_archive_was_made_from(folder: Path, tmp_path: Path) -> None:
    cut(folder, tmp_path / "out", quality=80)
    first, _ = records(tmp_path / "out")
    assert first["slide"] == "a.tif"
    assert first["archive"] == "a.zip"
    assert (first["width"], first["height"]) == (320, 256)
    assert (first["slide_mpp"], first["mpp_source"]) == (0.25, "openslide.mpp-x")
    assert first["num_bytes"] == (tmp_path / "out" / "a.zip").stat().st_size
    assert (first["settings"]["mpp"], first["settings"]["quality"]) == (0.25, 80)


def test_a_second_run_cuts_only_what_is_missing_or_changed(
    folder: Path, tmp_path: Path, pixels: Pixels
) -> None:
    out = tmp_path / "out"
    cut(folder, out)
    assert cut(folder, out)[0].num_kept == 2
    (out / "a.zip").unlink()
    assert cut(folder, out)[0].num_kept == 1
    make_slide(folder / "a.tif", pixels[:, :128])
    done, _ = cut(folder, out)
    assert (done.num_kept, done.num_tiles) == (1, 8 + 10)
    assert cut(folder, out, quality=50)[0].num_kept == 0
    assert cut(folder, out, quality=50, tiling={"overlap": 32})[0].num_kept == 0


def test_a_run_that_was_killed_goes_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut(folder, out)
    (out / "below" / "b.zip").unlink()
    text = (out / "slides.jsonl").read_text()
    (out / "slides.jsonl").write_text(text[: text.index("\n") + 30])  # the second line is cut
    done, _ = cut(folder, out)
    assert (done.num_kept, done.num_archives) == (1, 2)
    assert [record["archive"] for record in records(out)] == ["a.zip", "below/b.zip"]


def test_slides_of_one_name_keep_apart(folder: Path, tmp_path: Path) -> None:
    (folder / "below" / "b.tif").rename(folder / "a.tiff")
    cut(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.zip")) == [
        "a.tif.zip",
        "a.tiff.zip",
    ]


def test_a_slide_that_changes_meanwhile_leaves_no_archive(
    folder: Path, tmp_path: Path, pixels: Pixels
) -> None:
    out = tmp_path / "out"
    _, index = cut(folder, out)
    (out / "a.zip").unlink()
    make_slide(folder / "a.tif", pixels[:, :128])
    tiling = SlideTiling(mpp=0.25, tissue="none")
    config = TileConfig(
        slides_path=folder, out=out, slides=tiling, patch_size_px=SIDE, num_workers=1
    )
    done = cut_slides(index, config)
    assert done.faults == [
        "a.tif: 20 of 20 tiles cannot be read (first: slide has changed since it was indexed). "
        "Copy or export the slide again, and run adios-tme tile again."
    ]
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
        "b.zip",
        "slides.jsonl",
        "slides_dataset_index.safetensors",
    ]


def test_places_are_written_as_trident_has_them_and_read_again(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cut(folder, out)
    _, index = cut(folder, out, write_coordinates=True)  # also of archives that were there
    with h5py.File(out / "coordinates" / "a_patches.h5") as file:
        assert file["coords"].shape == (20, 2)
        assert file["coords"].attrs["patch_size_level0"] == SIDE
    (out / "coordinates" / "below" / "b_patches.h5").rename(out / "coordinates" / "b_patches.h5")
    tiling = SlideTiling(mpp=0.25, coordinates=out / "coordinates")
    again = index_archives(folder, index.selection, tmp_path / "i.safetensors", tiling=tiling).index
    assert again.columns["offset"].tolist() == index.columns["offset"].tolist()


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_the_estimate_is_near_what_is_written(folder: Path, tmp_path: Path, kind: str) -> None:
    done, index = cut(folder, tmp_path / "out", format=kind)
    tiling = SlideTiling(mpp=0.25)
    config = TileConfig(slides_path=folder, out=tmp_path / "none", slides=tiling, format=kind)
    found = estimate(index, config)
    assert (found.num_slides, found.num_tiles) == (2, 30)
    assert found.num_bytes == pytest.approx(done.num_bytes, rel=0.15)
    assert not (tmp_path / "none").exists()
