"""Zips, tars, folders and dumps through one index."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from adios_tme.config.data import PatchSelection
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import build_index, index_archives
from adios_tme.data.members import Kind
from adios_tme.errors import DataError
from tests.factories import make_archive, png
from tests.hostile import Entry, write_zip

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def make_tar(path: Path, contents: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def contents(index: DatasetIndex) -> dict[str, bytes]:
    dataset = PatchDataset(index)
    return {index.patch(row).member.name: dataset.content(row) for row in range(len(index))}


@pytest.mark.parametrize("tar_format", FORMATS)
def test_every_member_of_a_tar_reads_as_tarfile_reads_it(tar_format: int, tmp_path: Path) -> None:
    expected = {
        f"{'d' * 60}/{'n' * 60}_448_x{number}_y0.png": png(8 + number, seed=number)
        for number in range(5)
    }
    if tar_format != tarfile.USTAR_FORMAT:
        expected |= {f"{'long' * 60}_448_.png": png(9), "größe_448_.png": png(10)}
    make_tar(tmp_path / "a.tar", expected, tar_format)
    assert contents(build_index(tmp_path)) == expected


def test_webdataset_shards(tmp_path: Path) -> None:
    for shard in range(2):
        samples: dict[str, bytes] = {}
        for number in range(3):
            key = f"{shard}{number:04d}"
            samples |= {f"{key}.png": png(8, seed=10 * shard + number), f"{key}.json": b"{}"}
        make_tar(tmp_path / f"shard-{shard:06d}.tar", samples)
    index = build_index(tmp_path, PatchSelection(all=True))
    assert len(index) == 6
    assert contents(index)["10002.png"] == png(8, seed=12)
    assert index.patch(0).archive.kind == Kind.TAR


def test_dumps_of_a_folder_a_slide(tmp_path: Path) -> None:
    for slide in ("slide.A", "slide.B"):
        (tmp_path / slide).mkdir()
        for number in range(3):
            name = f"{number}_x{number * 448}_y-7.png"
            (tmp_path / slide / name).write_bytes(png(8, seed=number))
        (tmp_path / slide / "overview.png").write_bytes(png(8))  # not a patch
    index = build_index(tmp_path)
    patch = index.patch(4)
    assert (len(index), index.patches_per_slide()) == (6, {"slide.A": 3, "slide.B": 3})
    assert (patch.slide, patch.coordinates) == ("slide.B", (448, -7))
    assert PatchDataset(index).content(4) == png(8, seed=1)


def test_all_kinds_of_source_at_once(tmp_path: Path) -> None:
    make_archive(tmp_path / "z" / "a.zip", num_patches=2)
    make_tar(tmp_path / "t" / "b.TAR", {"p_448_.png": png(8)})
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "q_448_.png").write_bytes(png(9))
    index = build_index(tmp_path)
    kinds = [index.archive(number).kind for number in range(index.num_archives)]
    assert kinds == [Kind.FOLDER, Kind.TAR, Kind.ZIP]
    assert len(contents(index)) == 4


def test_a_slide_in_a_folder_of_the_archive(tmp_path: Path) -> None:
    names = ["s1/0_x0_y0.png", "s1/1_x0_y0.png", "s2/0_x0_y0.png"]
    make_tar(tmp_path / "a.tar", {name: png(8) for name in names})
    index = build_index(tmp_path)
    assert index.patches_per_slide() == {"a/s1": 2, "a/s2": 1}
    assert index.patch(2).slide == "a/s2"


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_archive(tmp_path / "elsewhere" / "a.zip", num_patches=2)
    data.mkdir()
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(data)
    index = build_index(data)
    assert len(index) == 2
    assert index_archives(data).num_scanned == 0
    assert PatchDataset(index).content(0) == png(32, seed=0)


def test_only_what_changed_is_listed_again(tmp_path: Path) -> None:
    for number in range(3):
        make_tar(tmp_path / f"{number}.tar", {"a_448_.png": png(8, seed=number)})
        (tmp_path / f"folder{number}").mkdir()
        (tmp_path / f"folder{number}" / "a_448_.png").write_bytes(png(8))
    assert index_archives(tmp_path).num_scanned == 6
    assert index_archives(tmp_path).num_scanned == 0
    make_tar(tmp_path / "1.tar", {"a_448_.png": png(9), "b_448_.png": png(9)})
    (tmp_path / "folder1" / "b_448_.png").write_bytes(png(9))
    report = index_archives(tmp_path)
    assert (report.num_scanned, len(report.index)) == (2, 8)


@pytest.mark.parametrize("name", ["{n}_x{n}_y0.png", "{n}_448_x{n}_y0.png"])
def test_backslashes_part_folders_as_slashes_do(name: str, tmp_path: Path) -> None:
    names = [f"slide{'AB'[n % 2]}\\" + name.format(n=n) for n in range(6)]
    write_zip(tmp_path / "a.zip", [Entry(each.encode(), png(8, seed=3)) for each in names])
    index = build_index(tmp_path)
    assert index.patches_per_slide() == {"a/slideA": 3, "a/slideB": 3}
    assert set(contents(index).values()) == {png(8, seed=3)}


def test_slides_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("A/slide_001", "B/slide_001"):
        make_archive(tmp_path / f"{place}.zip", num_patches=2)
    for place in ("TCGA-01", "TCGA-02"):
        make_tar(tmp_path / f"{place}.tar", {f"tiles/p{n}_448_.png": png(8) for n in range(3)})
    (tmp_path / "C" / "slide_001").mkdir(parents=True)
    (tmp_path / "C" / "slide_001" / "p_448_.png").write_bytes(png(8))
    index = build_index(tmp_path)
    assert index.patches_per_slide() == {
        "A/slide_001": 2,
        "B/slide_001": 2,
        "C/slide_001": 1,
        "TCGA-01/tiles": 3,
        "TCGA-02/tiles": 3,
    }
    assert {patch.slide for patch in index.patches(range(len(index)))} == set(
        index.patches_per_slide()
    )


def test_slides_that_file_names_state(tmp_path: Path) -> None:
    names = [f"S{n % 2} [x={n * 448},y=0,w=448,h=448].png" for n in range(4)]
    make_tar(tmp_path / "tiles.tar", {name: png(8) for name in names})
    index = build_index(tmp_path, PatchSelection(all=True))
    assert index.patches_per_slide() == {"tiles/S0": 2, "tiles/S1": 2}
    assert index.patch(3).coordinates == (1344, 0)


def test_a_pattern_of_names_gives_slides_places_and_sizes(tmp_path: Path) -> None:
    for shard in (1, 2):
        names = [f"{slide}~{10 * shard}~7~{size}.png" for slide in "st" for size in (448, 96)]
        make_tar(tmp_path / f"shard-{shard}.tar", {name: png(8) for name in names})
    pattern = r"(?P<slide>\w)~(?P<x>\d+)~(?P<y>\d+)~(?P<size>\d+)"
    index = build_index(tmp_path, PatchSelection(name_pattern=pattern))
    assert index.patches_per_slide() == {"s": 2, "t": 2}
    assert index.patch(2).coordinates == (20, 7)
    small = PatchSelection(name_pattern=pattern, patch_size_px=96)
    assert all(name.endswith("~96.png") for name in contents(build_index(tmp_path, small)))
    reopened = DatasetIndex.open(tmp_path)
    assert (reopened.selection, reopened.patch(0).slide) == (small, "s")


def test_a_pattern_that_fits_no_name_or_some(tmp_path: Path) -> None:
    make_archive(tmp_path / "a.zip", num_patches=3)
    with pytest.raises(DataError, match=r"matches no name there; they are like patch_000"):
        build_index(tmp_path, PatchSelection(name_pattern="(?P<slide>S\\d)"))
    report = index_archives(tmp_path, PatchSelection(name_pattern="(?P<slide>patch_00[01])"))
    (notice,) = report.notices()
    assert "does not match 1 of 3 names" in notice.text


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ([f"S_{x * 448}_{y * 448}.png" for x in range(3) for y in range(3)], 0),
        ([f"tile_448_{n}.png" for n in range(4)], 4),  # in all: a size and a count
        ([f"tile_{s}_{n}.png" for n in range(4) for s in (448, 224)], 4),
        ([f"patch_{n}_448_x0_y0.png" for n in (223, 224, 448)], 3),
        ([f"S_{x}_{y}_448_448.png" for x in (0, 224, 448) for y in (0, 448)], 6),
        ([f"S_{x}_{y}_224_224.png" for x in (0, 448) for y in (0, 448)], 0),
        ([f"p_x{x}_y{y}_.png" for x in (0, 448) for y in (0, 448)], 0),
    ],
)
def test_a_coordinate_is_no_size(names: list[str], taken: int, tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", {name: png(4) for name in ["_448_x.png", *names]})
    assert len(build_index(tmp_path)) - 1 == taken
