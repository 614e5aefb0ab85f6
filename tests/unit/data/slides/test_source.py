"""Slides as a source of the index: order, shards, resume and damage as of any other."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiling
from adios_tme.data.build_report import BuildReport
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import PICKLE_NAME, index_archives, write_pickle
from adios_tme.data.index_columns import map_columns
from adios_tme.data.loader import PatchLoader
from adios_tme.data.members import Kind
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.slides.files import tiling_digest
from adios_tme.errors import ConfigError, DataError
from tests.factories import make_archive, png
from tests.slides import Pixels, make_slide, stained

SIDE = 64
TILING = SlideTiling(mpp=0.25, tissue="none")


def build(folder: Path, tiling: SlideTiling = TILING, **options: Any) -> BuildReport:
    return index_archives(folder, PatchSelection(patch_size_px=SIDE), tiling=tiling, **options)


@pytest.fixture(scope="module")
def slides() -> dict[str, Pixels]:
    return {name: stained(256, 320, seed) for seed, name in enumerate("abc")}


@pytest.fixture
def folder(tmp_path: Path, slides: dict[str, Pixels]) -> Path:
    """Three slides of 5 x 4 tiles."""
    for name, pixels in slides.items():
        make_slide(tmp_path / "data" / f"{name}.tif", pixels)
    return tmp_path / "data"


def test_a_row_is_a_tile_with_name_slide_and_place(folder: Path, slides: dict[str, Pixels]) -> None:
    index = build(folder).index
    assert len(index) == 3 * 20
    dataset = PatchDataset(index, img_size=SIDE)
    for row, patch in enumerate(index.patches(range(60))):
        x, y = row % 5 * SIDE, row % 20 // 5 * SIDE
        assert patch.slide == "abc"[row // 20]
        assert (patch.coordinates, patch.x, patch.y) == ((x, y), x, y)
        assert patch.name == f"{patch.slide}_64_x{x}_y{y}_mpp0.25"
        expected = slides[patch.slide][y : y + SIDE, x : x + SIDE]
        np.testing.assert_array_equal(dataset[row].permute(1, 2, 0).numpy(), expected)
    assert index.names(np.array([59])) == ["c_64_x256_y192_mpp0.25"]
    assert index.patches_per_slide() == {"a": 20, "b": 20, "c": 20}


def test_a_tile_costs_at_most_24_bytes(folder: Path, slides: dict[str, Pixels]) -> None:
    make_archive(folder / "0.zip", size_px=8)  # before them; its names are not theirs
    few = build(folder)
    few_bytes = few.index.num_bytes
    make_slide(folder / "b.tif", np.tile(slides["b"], (4, 4, 1)))
    many = build(folder)
    num_more = len(many.index) - len(few.index)
    assert num_more == 15 * 20
    assert (many.index.num_bytes - few_bytes) / num_more <= 24


@pytest.fixture
def mixed(folder: Path) -> Path:
    """Archives before, between and after the slides; one in folders, one empty of patches."""
    for name in ("0", "aa", "z"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for number in range(3):
                archive.writestr(f"in/{name}_{number}_{SIDE}_.png", png(8))
    with zipfile.ZipFile(folder / "bb.zip", "w") as archive:
        archive.writestr("other.txt", "")
    return folder


def names_of(index: DatasetIndex) -> list[str]:
    return [patch.name for patch in index.patches(range(len(index)))]


def expected_names() -> list[str]:
    names = []
    for source in ("0", "a", "aa", "b", "c", "z"):
        if source in "abc":
            places = itertools.product(range(0, 256, SIDE), range(0, 320, SIDE))
            names += [f"{source}_64_x{x}_y{y}_mpp0.25" for y, x in places]
        else:
            names += [f"in/{source}_{number}_64_.png" for number in range(3)]
    return names


def test_tiles_and_patches_keep_their_own_names(mixed: Path) -> None:
    index = build(mixed).index
    assert names_of(index) == expected_names()
    assert index.names(np.array([68, 3, 23])) == [
        "in/z_2_64_.png",
        "a_64_x0_y0_mpp0.25",
        "in/aa_0_64_.png",
    ]
    assert index.patches_per_slide() == {
        "0/in": 3,
        "a": 20,
        "aa/in": 3,
        "b": 20,
        "c": 20,
        "z/in": 3,
    }
    make_slide(mixed / "c.tif", stained(256, 320, 2))
    again = build(mixed)
    assert again.num_scanned == 1
    assert names_of(again.index) == expected_names()


def test_an_index_in_which_tiles_had_empty_names_is_read(mixed: Path) -> None:
    index = build(mixed).index
    columns, (_, metadata) = load_file(index.path), map_columns(index.path)
    ends = np.zeros(len(index), np.uint64)
    is_patch = [not name.endswith("mpp0.25") for name in expected_names()]
    ends[is_patch] = columns["name_ends"]
    columns["name_ends"] = np.maximum.accumulate(ends)
    save_file(columns, index.path, metadata)
    assert names_of(DatasetIndex.open(index.path)) == expected_names()
    make_slide(mixed / "c.tif", stained(256, 320, 2))
    again = build(mixed)
    assert again.num_scanned == 1
    assert names_of(again.index) == expected_names()
    assert len(again.index.columns["name_ends"]) == 9


def test_names_that_do_not_fit_the_rows_are_told(mixed: Path) -> None:
    index = build(mixed).index
    columns, (_, metadata) = load_file(index.path), map_columns(index.path)
    columns["name_ends"] = columns["name_ends"][1:]
    save_file(columns, index.path, metadata)
    with pytest.raises(DataError, match="Remove it and run adios-tme index"):
        DatasetIndex.open(index.path)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_ranks_see_each_tile_once_and_pixels_are_those_of_the_row(
    folder: Path, num_ranks: int, num_workers: int
) -> None:
    index = build(folder).index
    dataset, seen = PatchDataset(index, img_size=SIDE), []
    for rank in range(num_ranks):
        rows, images = shown(index, 60 // (5 * num_ranks), num_workers, rank, num_ranks)
        seen.extend(rows)
        for row, image in zip(rows, images, strict=True):
            assert torch.equal(image, dataset[row])
    assert sorted(seen) == list(range(60))


def shown(
    index: DatasetIndex | PatchMixture,
    count: int,
    num_workers: int = 0,
    rank: int = 0,
    num_ranks: int = 1,
    first_sample: int = 0,
    open_slides: int = 1,
) -> tuple[list[int], list[torch.Tensor]]:
    """Rows and images of some batches."""
    loader = PatchLoader(
        index,
        img_size=SIDE,
        batch_size=5,
        rank=rank,
        num_ranks=num_ranks,
        first_sample=first_sample,
        num_workers=num_workers,
        open_slides=open_slides,
    )
    rows: list[int] = []
    images: list[torch.Tensor] = []
    for batch in itertools.islice(iter(loader), count):
        rows.extend(batch.rows.tolist())
        images.extend(batch.on(torch.device("cpu"), SIDE))
    loader.close()
    return rows, images


def test_resuming_goes_on_at_the_exact_tile(folder: Path) -> None:
    index = build(folder).index
    straight = shown(index, 15)  # beyond an epoch
    before, after = shown(index, 7), shown(index, 8, num_workers=2, first_sample=35, open_slides=3)
    assert straight[0] == before[0] + after[0]
    assert all(map(torch.equal, straight[1], before[1] + after[1]))


def test_slides_and_archives_are_one_training_set(folder: Path, tmp_path: Path) -> None:
    make_archive(folder / "d.zip", num_patches=4, size_px=SIDE)
    together = index_archives(folder, PatchSelection(), tiling=TILING).index
    kinds = [together.archive(number).kind for number in range(together.num_archives)]
    assert kinds == [Kind.SLIDE] * 3 + [Kind.ZIP]
    make_archive(tmp_path / "zips" / "e.zip", num_patches=10, size_px=SIDE)
    zips = index_archives(tmp_path / "zips", PatchSelection()).index
    mix = PatchMixture([build(folder).index, zips], [0.5, 1.0])
    assert mix.epoch_length == 30 + 10
    rows, _ = shown(mix, 8)
    assert sum(row >= 60 for row in rows) == 10


def test_damage_is_told_by_slide_and_tile_and_replaced(
    folder: Path, slides: dict[str, Pixels]
) -> None:
    index = build(folder).index
    make_slide(folder / "b.tif", slides["a"][:128])
    loader = PatchLoader(index, img_size=SIDE, batch_size=5)
    batches = list(itertools.islice(iter(loader), 12))
    loader.close()
    told = {damage for batch in batches for damage in batch.damaged}
    assert {damage.reason for damage in told} == {"slide has changed since it was indexed"}
    assert {damage.archive for damage in told} == {"b.tif"}
    assert {damage.name for damage in told} <= set(index.names(np.arange(20, 40)))
    rows = {row for batch in batches for row in batch.rows.tolist()}
    assert rows <= {*range(20), *range(40, 60)}


def test_only_what_changed_is_looked_at_again(folder: Path, slides: dict[str, Pixels]) -> None:
    assert build(folder).num_scanned == 3
    assert build(folder).num_scanned == 0
    make_slide(folder / "b.tif", slides["a"][:128])
    again = build(folder)
    assert (again.num_scanned, len(again.index)) == (1, 50)
    other = build(folder, SlideTiling(mpp=0.5, tissue="none"))
    assert (other.num_scanned, len(other.index)) == (3, 2 * 4 + 2)
    assert other.index.content_digest() != again.index.content_digest()


def test_a_table_of_scales_that_changed_is_read_again(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "mpp.csv"
    tiling = SlideTiling(mpp=0.25, tissue="none", mpp_csv=table)
    for mpp, count in ((0.25, 20), (0.125, 4)):
        table.write_text(f"wsi,mpp\na.tif,{mpp:.4f}\n")
        assert build(folder, tiling).index.patches_per_slide()["a"] == count


def test_an_index_of_an_earlier_version_is_still_that_of_its_settings() -> None:
    digests = [
        tiling_digest(SlideTiling(mpp=0.25)),
        tiling_digest(SlideTiling(mpp=2, overlap=8, icc=True, min_tissue=0.3)),
    ]
    # Other digests would read all slides again.
    assert digests == [
        "db8df33461aad79594b32fccd776df7b5c145825c40f412216c2323db2297344",
        "3303c1bc982497db44bc3564f86d7ad50ecbbf49471f2edc8d68f359016285cb",
    ]


def test_another_spelling_of_the_path_of_a_table_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scales.csv").write_text("wsi,mpp\na.svs,0.25\n")
    monkeypatch.chdir(tmp_path)
    tables = (Path("scales.csv"), tmp_path / "scales.csv")
    first, second = (
        build(folder, SlideTiling(mpp=0.25, tissue="none", mpp_csv=table)) for table in tables
    )
    assert (first.num_scanned, second.num_scanned) == (3, 0)
    assert first.index.content_digest() == second.index.content_digest()


def test_slides_without_a_scale_are_left_out_loudly(folder: Path) -> None:
    (folder / "a.tif").rename(folder / "a.svs")
    make_archive(folder / "d.zip")
    report = index_archives(folder, PatchSelection(), tiling=SlideTiling())
    (notice,) = (each for each in report.notices() if "whole slides" in each.text)
    assert notice.is_urgent
    assert notice.text == (
        "Left out: 1 whole slides, which are read at a stated scale alone (a.svs). "
        "Give --mpp, such as --mpp 0.25, or cut them into patches with adios-tme tile."
    )


def test_images_beside_slides_stay_patches_and_slides_are_none(folder: Path) -> None:
    (folder / "p_64_x0_y0.png").write_bytes(b"")
    index = build(folder).index
    kinds = [index.archive(number).kind for number in range(index.num_archives)]
    assert sorted(kinds) == [Kind.FOLDER] + [Kind.SLIDE] * 3
    assert len(index) == 61


def test_a_slide_that_cannot_be_used_is_named_and_the_others_taken(folder: Path) -> None:
    (folder / "bad.svs").write_bytes(b"no slide")
    report = build(folder)
    assert len(report.index) == 60
    assert [fault.message for fault in report.faults] == [
        "bad.svs: is no slide that OpenSlide reads, or is cut short. "
        "Copy or export the slide again, or remove it."
    ]


def test_nothing_but_glass_says_what_to_do(tmp_path: Path) -> None:
    make_slide(tmp_path / "a.tif", np.full((256, 256, 3), 244, np.uint8))
    with pytest.raises(DataError) as nothing:
        build(tmp_path, SlideTiling(mpp=0.25))
    assert str(nothing.value) == (
        f"{tmp_path}: no tile of tissue in 1 slides (first: a.tif). Lower --min-tissue, choose "
        f"another --tissue, or take every tile with --tissue none."
    )


def test_one_file_of_regions_is_not_for_several_slides(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text("{}")
    tiling = SlideTiling(mpp=0.25, tissue=str(tmp_path / "a.geojson"))
    with pytest.raises(ConfigError, match=r"the regions of one slide, and there are 3\."):
        build(folder, tiling)


def test_a_list_of_archives_cannot_name_slides(folder: Path) -> None:
    with pytest.raises(ConfigError, match="holds whole slides, which a list of archives cannot"):
        write_pickle(build(folder).index, folder / PICKLE_NAME)


def test_a_series_of_dicom_files_is_one_slide(tmp_path: Path) -> None:
    from adios_tme.data.slides.files import first_of_each_series

    series = {"1.dcm": b"1.2.3", "2.dcm": b"1.2.3", "3.dcm": b"1.2.4", "4.dcm": b""}
    for name, uid in series.items():
        header = b"\x20\x00\x0e\x00UI" + len(uid).to_bytes(2, "little") + uid if uid else b""
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + header + bytes(64))
    names = [*series, "a.svs"]
    assert list(first_of_each_series(tmp_path, names)) == ["1.dcm", "3.dcm", "4.dcm", "a.svs"]


def test_files_that_belong_to_a_slide_are_nothing_of_their_own(folder: Path) -> None:
    (folder / "m").mkdir()
    (folder / "m" / "Data0000.dat").write_bytes(b"0")
    (folder / "m.mrxs").write_bytes(b"no slide")
    report = build(folder)
    assert [fault.path.name for fault in report.faults] == ["m.mrxs"]
    assert report.left_out.count("not_an_image") == 0
