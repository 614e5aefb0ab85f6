"""The index file: what it holds, how it is brought up to date, what it refuses."""

from __future__ import annotations

import json
import os
import pickle
import socket
import zipfile
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from adios_tme.config.data import PatchSelection
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index import INDEX_NAME, DatasetIndex
from adios_tme.data.index_builder import build_index, index_archives, write_pickle
from adios_tme.errors import ConfigError, DataError
from tests.factories import make_archive, make_dataset, png


def names(index: DatasetIndex) -> list[str]:
    return [index.patch(row).member.name for row in range(len(index))]


def test_rows_are_patches_archive_after_archive(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=3, num_patches=4)
    index = build_index(tmp_path)
    assert (len(index), index.num_archives, index.num_slides()) == (12, 3, 3)
    patch = index.patch(5)
    assert patch.archive.path == tmp_path / "slide_001.zip"
    assert patch.member.name == "patch_001_448_x448_y0.png"
    assert (patch.slide, patch.coordinates) == ("slide_001", (448, 0))
    assert (patch.name, patch.x, patch.y) == (patch.member.name, 448, 0)
    assert PatchDataset(index).patch(5) == patch
    with pytest.raises(IndexError, match="row 12 of an index with 12"):
        index.patch(12)


def test_a_patch_without_coordinates_has_none(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("plain_448_0.png", png(8))
    patch = build_index(tmp_path).patch(0)
    assert (patch.name, patch.slide, patch.x, patch.y) == ("plain_448_0.png", "a", None, None)


def test_patches_looked_up_together_come_as_they_were_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / f"slide_{number:03d}.zip" for number in range(3)]
    make_dataset(tmp_path, num_archives=3, num_patches=4)
    index = build_index(tmp_path)
    listed: list[tuple[Path, str, int, int, int]] = []
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        listed += [(path, e.filename, e.header_offset, e.file_size, e.CRC) for e in entries]
    asked = [11, 0, 5, 5, 4]
    found = [
        (patch.archive.path, member.name, member.offset, member.size, member.crc32)
        for patch in index.patches(asked)
        for member in [patch.member]
    ]
    assert found == [listed[row] for row in asked]
    assert index.patches([]) == []
    with pytest.raises(IndexError, match="row -1 of"):
        index.patches([3, -1])


def test_other_tools_read_the_file(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path))
    columns = load_file(index.path)
    assert columns["offset"].tolist() == [index.patch(row).member.offset for row in range(12)]
    assert columns["names"].tobytes().decode() == "".join(names(index))


def test_a_patch_costs_at_most_32_bytes_and_its_name(tmp_path: Path) -> None:
    make_archive(tmp_path / "a.zip", num_patches=10, size_px=4)
    small = build_index(tmp_path)
    name_bytes = sum(map(len, names(small)))
    small_size = small.num_bytes
    make_archive(tmp_path / "a.zip", num_patches=500, size_px=4)
    large = build_index(tmp_path)
    grown = large.num_bytes - small_size - (sum(map(len, names(large))) - name_bytes)
    assert grown / 490 <= 32


def test_opening_reads_the_header_alone(tmp_path: Path) -> None:
    make_archive(tmp_path / "a.zip", num_patches=2000, size_px=1)
    path = build_index(tmp_path).path
    before = bytes_read()
    index = DatasetIndex.open(path)
    assert bytes_read() - before < index.num_bytes / 2
    assert index.num_bytes > 100_000


def bytes_read() -> int:
    """Bytes that this process has read from files so far, as the kernel counts them."""
    first = Path("/proc/self/io").read_text().splitlines()[0]
    return int(first.removeprefix("rchar: "))


def test_only_changed_archives_are_scanned_again(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=4)
    assert index_archives(tmp_path).num_scanned == 4
    assert index_archives(tmp_path).num_scanned == 0
    make_archive(tmp_path / "slide_001.zip", num_patches=7, seed=9)
    make_archive(tmp_path / "below" / "new.zip", num_patches=2)
    (tmp_path / "slide_002.zip").unlink()
    report = index_archives(tmp_path)
    assert report.num_scanned == 2
    fresh = index_archives(tmp_path, output=tmp_path / "other.safetensors").index
    assert names(report.index) == names(fresh)
    assert [report.index.patch(row) for row in range(len(fresh))] == [
        fresh.patch(row) for row in range(len(fresh))
    ]
    assert index_archives(tmp_path, rebuild=True).num_scanned == 4


def test_an_index_that_cannot_be_opened_is_told_before_archives_are_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path, num_archives=1)
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(INDEX_NAME)  # there, and not to be opened, even by root
    with pytest.raises(DataError, match=r"the index cannot be read .* remove it"):
        index_archives(tmp_path)
    assert len(index_archives(tmp_path, rebuild=True).index) == 4


def test_another_rule_scans_everything_again(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=2)
    index_archives(tmp_path)
    report = index_archives(tmp_path, PatchSelection(pattern="patch_00[01]"))
    assert (report.num_scanned, len(report.index)) == (2, 4)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (PatchSelection(), ["a_448_x.png", "b_448_.JPG"]),
        (PatchSelection(patch_size_px=224), ["a_224_448_x.png", "c_224_.png"]),
        (PatchSelection(pattern=r"^c|^b"), ["b_448_.JPG", "c_224_.png"]),
        (PatchSelection(all=True), ["a_448_x.png", "a_224_448_x.png", "b_448_.JPG", "c_224_.png"]),
    ],
)
def test_names_decide(selection: PatchSelection, expected: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a_448_x.png", "a_224_448_x.png", "b_448_.JPG", "c_224_.png", "d_448_.txt"):
            archive.writestr(name, png(4))
    assert names(build_index(tmp_path, selection)) == expected


def test_nothing_found_says_what_was_seen_and_asked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("tile_256_x0_y0.png", png(4))
    with pytest.raises(DataError) as caught:
        build_index(tmp_path)
    assert "tile_256_x0_y0.png" in str(caught.value)
    assert "_448_" in str(caught.value)
    assert not (tmp_path / INDEX_NAME).exists()


def test_a_damaged_archive_is_left_out_and_named(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=3)
    half = (tmp_path / "slide_001.zip").read_bytes()
    (tmp_path / "slide_001.zip").write_bytes(half[: len(half) // 2])
    report = index_archives(tmp_path)
    assert len(report.index) == 8
    (fault,) = report.faults
    assert "slide_001.zip" in fault.message


@pytest.mark.parametrize(
    ("prepare", "error", "text"),
    [
        (lambda path: None, ConfigError, "does not exist"),
        (lambda path: path.write_text("x"), ConfigError, "is neither a folder nor an archive"),
        (lambda path: path.mkdir(), DataError, "holds no zip archive"),
    ],
)
def test_a_folder_that_cannot_be_indexed(
    prepare: object, error: type[Exception], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    prepare(path)  # type: ignore[operator]
    with pytest.raises(error, match=text):
        build_index(path)


@pytest.mark.parametrize(
    "damage",
    ["cut", "junk", "other format", "shifted column", "no selection", "no root", "list", "deep"],
)
def test_a_damaged_index_is_refused(damage: str, tmp_path: Path) -> None:
    path = build_index(make_dataset(tmp_path)).path
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if damage == "cut":
        content = content[:-20]
    elif damage == "junk":
        content = os.urandom(200)
    elif damage == "other format":
        content = content.replace(b"dataset index 2", b"dataset index 9")
    elif damage.startswith("no "):
        content = content.replace(damage[3:].encode(), b"x" * len(damage[3:]))
    elif damage in ("list", "deep"):
        text = b"[]" if damage == "list" else b"[" * 100_000
        content = len(text).to_bytes(8, "little") + text
    else:
        header["offset"]["data_offsets"][1] += 8
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + content[8 + length :]
    path.write_bytes(content)
    with pytest.raises(DataError, match="Remove it and run adios-tme index"):
        DatasetIndex.open(path)


def test_many_archives_are_scanned_by_several_processes(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=70, num_patches=1)
    parallel = index_archives(tmp_path, output=tmp_path / "p.safetensors", num_workers=2).index
    alone = index_archives(tmp_path, output=tmp_path / "s.safetensors", num_workers=1).index
    assert [parallel.patch(row) for row in range(70)] == [alone.patch(row) for row in range(70)]


def test_the_list_for_older_trainers(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path, num_archives=2, num_patches=1))
    write_pickle(index, tmp_path / "dataset_index.pkl")
    listing = pickle.loads((tmp_path / "dataset_index.pkl").read_bytes())
    assert listing == [
        (str(tmp_path / f"slide_00{number}.zip"), ["patch_000_448_x0_y0.png"]) for number in (0, 1)
    ]


def test_an_index_elsewhere_finds_its_archives(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", num_archives=1)
    index = build_index(tmp_path / "data", output=tmp_path / "run" / "i.safetensors")
    again = DatasetIndex.open(tmp_path / "run" / "i.safetensors")
    assert again.patch(0).archive.path == tmp_path / "data" / "slide_000.zip"
    assert len(index) == len(again)
