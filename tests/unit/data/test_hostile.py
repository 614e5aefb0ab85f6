"""What is bad in a file is told and replaced: no crash, no hang, no leak, no read outside it."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from pathlib import Path

import pytest

from adios_tme.data.corrupt import CorruptLog, CorruptPatch, CorruptPatchError
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.decode import decode_image
from adios_tme.data.index_builder import build_index, index_archives
from adios_tme.data.loader import PatchLoader
from adios_tme.data.reader import OpenArchives
from tests.factories import make_archive, png
from tests.hostile import ARCHIVES, PATCHES, Case, png_of_zeros, readable_oddities, streamed

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("case", PATCHES.values(), ids=list(PATCHES))
def test_a_bad_patch_is_told_and_replaced(case: Case, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    case.build(data)
    index = build_index(data)
    before = num_open_files()
    loader = PatchLoader(index, img_size=8, batch_size=len(index), seed=1)
    batch = next(iter(loader))
    assert batch.images.shape[0] == len(index)
    log = CorruptLog(tmp_path / "corrupt.jsonl")
    log.record(batch.damaged)
    told = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert {entry["name"] for entry in told} == set(case.names)
    assert re.search(case.reason, told[0]["reason"])
    good = {index.patch(row).member.name for row in batch.rows.tolist()}
    assert len(good) == len(index) - len(case.names)
    loader.close()
    del loader
    assert num_open_files() - before <= 1  # the one archive that was read


@pytest.mark.parametrize("case", ARCHIVES.values(), ids=list(ARCHIVES))
def test_a_bad_archive_is_left_out_and_named(case: Case, tmp_path: Path) -> None:
    case.build(tmp_path)
    before = num_open_files()
    report = index_archives(tmp_path)
    assert len(report.index) == 4
    messages = [fault.message for fault in report.faults]
    assert any(re.search(case.reason, message) for message in messages), messages
    assert num_open_files() - before == 1  # the index


def test_odd_names_are_read_as_they_are(tmp_path: Path) -> None:
    expected = readable_oddities(tmp_path / "a.zip")
    dataset = PatchDataset(build_index(tmp_path))
    found = {dataset.mix.patch(row).member.name: dataset.content(row) for row in range(5)}
    assert found == expected


def test_data_descriptors_are_read(tmp_path: Path) -> None:
    streamed(tmp_path / "a.zip")
    dataset = PatchDataset(build_index(tmp_path))
    assert [dataset.content(row) for row in range(3)] == [png(16, seed=n) for n in range(3)]


def test_the_log_holds_any_name(tmp_path: Path) -> None:
    log = CorruptLog(tmp_path / "corrupt.jsonl")
    names = ["\udce9\x00\n\x1b[31m", "x" * 65535]
    log.record(CorruptPatch("a.zip", name, "gone") for name in names)
    assert CorruptLog(log.path).record([CorruptPatch("a.zip", names[0], "gone")]) == []
    assert [json.loads(line)["name"] for line in log.path.read_text().splitlines()] == names


def test_an_archive_that_is_shortened_while_it_is_read(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zip", num_patches=3)
    dataset = PatchDataset(build_index(tmp_path))
    dataset.content(0)  # opens it
    os.truncate(path, dataset.mix.patch(2).member.offset + 10)
    assert dataset.content(0) == png(32, seed=0)
    with pytest.raises(CorruptPatchError, match=r"no member|truncated"):
        dataset.content(2)
    os.truncate(path, 0)
    with pytest.raises(CorruptPatchError, match="no member"):
        dataset.content(0)


def test_an_archive_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zip", num_patches=3)
    dataset = PatchDataset(build_index(tmp_path))
    dataset.content(0)
    other = make_archive(tmp_path / "b" / "b.zip", num_patches=3, seed=7)
    other.replace(path)
    assert dataset.content(1) == png(32, seed=1)  # the one that was opened
    dataset.close()
    with pytest.raises(CorruptPatchError, match="has changed since it was indexed"):
        dataset.content(1)


@pytest.mark.parametrize("become", [os.mkfifo, os.mkdir])
def test_an_archive_that_turns_into_something_else(become: object, tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zip", num_patches=1)
    dataset = PatchDataset(build_index(tmp_path))
    path.unlink()
    become(path)  # type: ignore[operator]
    with pytest.raises(CorruptPatchError, match="has changed since it was indexed"):
        dataset.content(0)


def test_a_file_that_changes_after_indexing(tmp_path: Path) -> None:
    path = tmp_path / "slide" / "0_x0_y0.png"
    path.parent.mkdir()
    path.write_bytes(png(16))
    dataset = PatchDataset(build_index(tmp_path))
    assert dataset.content(0) == png(16)
    path.write_bytes(png(24))
    with pytest.raises(CorruptPatchError, match="file has changed"):
        dataset.content(0)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CorruptPatchError, match="no regular file"):
        dataset.content(0)
    shutil.rmtree(path.parent)
    with pytest.raises(CorruptPatchError, match="cannot be opened"):
        PatchDataset(dataset.mix).content(0)


def test_when_file_handles_run_out_ours_are_given_back(tmp_path: Path) -> None:
    for number in range(4):
        make_archive(tmp_path / f"{number}.zip", num_patches=1, seed=number)
    index = build_index(tmp_path)
    archives = OpenArchives()
    for row in range(3):
        archives.read(index.patch(row))
    held: list[int] = []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_open_files() + 20, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            take_all_handles(tmp_path, held)
        assert archives.read(index.patch(3)) == png(32, seed=3000)
        archives.close()
        with pytest.raises(OSError, match="Too many open files"):
            take_all_handles(tmp_path, held)
        with pytest.raises(CorruptPatchError, match="Too many open files"):
            OpenArchives().read(index.patch(3))
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_a_claim_beyond_the_end_is_truncation(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "a.zip", num_patches=1)
    index = build_index(tmp_path)
    patch = index.patch(0)
    member = patch.member._replace(size=200 << 20, compressed_size=200 << 20)
    lying = patch._replace(member=member)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CorruptPatchError, match="truncated"):
        OpenArchives().read(lying)


def test_a_png_inflates_to_what_its_header_says_and_no_further() -> None:
    content = png_of_zeros(256 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode_image(content).shape == (32, 32, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def take_all_handles(folder: Path, held: list[int]) -> None:
    while True:
        held.append(os.open(folder, os.O_RDONLY))


def num_open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
