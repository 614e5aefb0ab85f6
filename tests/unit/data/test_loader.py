"""Reading patches, sharding them, and replacing damaged ones."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.decode import decode_image
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import build_index
from adios_tme.data.loader import BATCHES_PLANNED, PatchLoader
from adios_tme.data.order import sample_rows
from adios_tme.data.prefetch import Prefetcher
from adios_tme.data.reader import OpenArchives
from adios_tme.data.slots import Batch
from adios_tme.errors import DataError
from tests.factories import make_archive, make_dataset, png


def batches(index: DatasetIndex, count: int, **options: int) -> list[Batch]:
    loader = PatchLoader(index, **{"img_size": 8, "batch_size": 2, "seed": 3, **options})  # type: ignore[arg-type]
    loader.start()
    iterator = iter(loader)
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        loader.close()


def rows(index: DatasetIndex, count: int, **options: int) -> list[int]:
    return [row for batch in batches(index, count, **options) for row in batch.rows.tolist()]


def damage(path: Path, at: int) -> None:
    """Flip a byte, and keep the time that the index knows."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_patch_is_its_file(tmp_path: Path) -> None:
    make_archive(tmp_path / "a.zip", num_patches=2, size_px=16, seed=1)
    dataset = PatchDataset(build_index(tmp_path), img_size=16)
    expected = decode_image(png(16, seed=1001)).transpose(2, 0, 1)
    assert dataset[1].dtype == torch.uint8
    np.testing.assert_array_equal(dataset[1].numpy(), expected)
    dataset.close()


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_each_patch_comes_once_an_epoch_whatever_the_ranks_and_workers(
    num_ranks: int, num_workers: int, tmp_path: Path
) -> None:
    index = build_index(make_dataset(tmp_path, num_archives=3, num_patches=8))  # 24 patches
    steps = 2 * 24 // (2 * num_ranks)  # two epochs
    own = [
        shown(index, steps, rank=rank, num_ranks=num_ranks, num_workers=num_workers)
        for rank in range(num_ranks)
    ]
    # Together, in the order of the samples, they are what one process sees: rows and pixels.
    parts = [part[2 * step : 2 * step + 2] for step in range(steps) for part in own]
    joined = [row for part in parts for row, _ in part]
    assert sorted(joined[:24]) == sorted(joined[24:]) == list(range(24))
    assert joined == sample_rows(np.arange(48), 24, seed=3).tolist()
    dataset = PatchDataset(index, img_size=8)
    for row, image in (each for part in parts for each in part):
        assert torch.equal(image, dataset[row])


def shown(index: DatasetIndex, count: int, **options: int) -> list[tuple[int, torch.Tensor]]:
    """Rows and images, copied out of the loader's memory as training does."""
    loader = PatchLoader(index, **{"img_size": 8, "batch_size": 2, "seed": 3, **options})  # type: ignore[arg-type]
    batches = iter(loader)
    found: list[tuple[int, torch.Tensor]] = []
    for _ in range(count):
        batch = next(batches)
        found.extend(zip(batch.rows.tolist(), batch.on(torch.device("cpu"), 8), strict=True))
    loader.close()
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("resize_in_worker", [True, False])
def test_images_are_the_same_wherever_they_are_resized(
    num_workers: int, resize_in_worker: bool, tmp_path: Path
) -> None:
    # Most patches are of one size; those that are not take their own way.
    make_archive(tmp_path / "a.zip", num_patches=8, size_px=24)
    make_archive(tmp_path / "b.zip", num_patches=2, size_px=16, seed=1)
    make_archive(tmp_path / "c.zip", num_patches=2, size_px=40, seed=2)
    index = build_index(tmp_path)
    dataset = PatchDataset(index, img_size=16)
    loader = PatchLoader(
        index,
        img_size=16,
        batch_size=4,
        num_workers=num_workers,
        resize_in_worker=resize_in_worker,
    )
    batches, seen = iter(loader), set()
    for _ in range(9):
        batch = next(batches)
        assert batch.images.shape[1:] == ((16, 16, 3) if resize_in_worker else (24, 24, 3))
        for row, image in zip(batch.rows.tolist(), batch.on(torch.device("cpu"), 16), strict=True):
            assert torch.equal(image, dataset[row])
            seen.add(row)
    assert seen == set(range(12))
    loader.close()


@pytest.mark.timeout(120)
def test_a_loader_that_nobody_closes_does_not_keep_the_program(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path))
    program = (
        "import sys; from pathlib import Path\n"
        "from adios_tme.data.index import DatasetIndex\n"
        "from adios_tme.data.loader import PatchLoader\n"
        "index = DatasetIndex.open(Path(sys.argv[1]))\n"
        "batches = iter(loader := PatchLoader(index, img_size=8, batch_size=2, num_workers=2))\n"
        "print(len(next(batches).rows))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(index.path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.split() == ["2"]


def test_images_outlive_their_slot(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path))
    batches = iter(PatchLoader(index, img_size=32, batch_size=4, seed=3))
    first = next(batches)
    kept = first.on(torch.device("cpu"), 32)
    copy = kept.clone()
    for _ in range(4):
        next(batches)
    assert torch.equal(kept, copy)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are read from Linux's /proc")
def test_workers_reuse_the_memory_of_the_image_before(real_data: Path) -> None:
    before = set(multiprocessing.active_children())
    index = build_index(real_data / "tiles")
    loader = PatchLoader(index, img_size=448, batch_size=4, num_workers=1)
    loader.start()
    (worker,) = set(multiprocessing.active_children()) - before
    stream = iter(loader)
    for _ in range(32):
        next(stream)  # every slot is written to, and what a fork shares with this process is copied
    faults = num_page_faults(worker.pid)
    for _ in range(25):
        next(stream)
    assert num_page_faults(worker.pid) - faults < 100 * 5  # a file and its pixels are 230 pages
    loader.close()


def num_page_faults(pid: int | None) -> int:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    return int(after_name.split()[7])


@pytest.mark.gpu
@pytest.mark.parametrize("resize_in_worker", [True, False])
def test_a_gpu_gets_the_same_images(resize_in_worker: bool, tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path, num_archives=3, num_patches=8))
    dataset = PatchDataset(index, img_size=16)
    loader = PatchLoader(
        index,
        img_size=16,
        batch_size=4,
        num_workers=2,
        resize_in_worker=resize_in_worker,
        pin_memory=True,
    )
    handover, batches = Prefetcher(torch.device("cuda"), 16), iter(loader)
    for _ in range(20):
        batch, images = handover.take(batches)
        expected = torch.stack([dataset[row] for row in batch.rows.tolist()]).int()
        assert (images.cpu().int() - expected).abs().max() <= (0 if resize_in_worker else 1)
    loader.close()


def test_it_goes_on_at_an_exact_sample(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path))
    assert rows(index, 8)[6:] == rows(index, 5, first_sample=6)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_many_more_batches_than_are_planned_at_a_time(num_workers: int, tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path, num_archives=2, num_patches=3))
    num_batches = 2 * BATCHES_PLANNED + 3
    found = rows(index, num_batches, batch_size=1, num_workers=num_workers)
    assert found == sample_rows(np.arange(num_batches), 6, seed=3).tolist()


def test_a_batch_mixes_slides(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path, num_archives=6, num_patches=6))
    archives = [
        {patch.archive.path for patch in index.patches(batch.rows.numpy())}
        for batch in batches(index, 6, batch_size=6)
    ]
    assert min(map(len, archives)) >= 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_patch_is_replaced_by_the_next_and_told(num_workers: int, tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=2, num_patches=3)
    index = build_index(tmp_path)
    order = sample_rows(np.arange(6), 6, seed=3).tolist()
    patch = index.patch(order[1])
    damage(patch.archive.path, patch.member.offset + 100)
    found = batches(index, 3, num_workers=num_workers)
    shown = [row for batch in found for row in batch.rows.tolist()]
    assert shown == [order[0], order[2], order[2], order[3], order[4], order[5]]
    (told,) = [damage for batch in found for damage in batch.damaged]
    assert (told.archive, told.name) == (patch.archive.path.name, patch.member.name)
    assert "CRC" in told.reason


def test_a_changed_archive_is_not_trusted(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=1)
    dataset = PatchDataset(build_index(tmp_path))
    make_archive(tmp_path / "slide_000.zip", num_patches=9, seed=4)
    with pytest.raises(CorruptPatchError, match="has changed since it was indexed"):
        dataset[0]
    (tmp_path / "slide_000.zip").unlink()
    with pytest.raises(CorruptPatchError, match="cannot be opened"):
        dataset[0]


def test_nothing_but_damage_stops_with_a_message(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=1)
    index = build_index(tmp_path)
    (tmp_path / "slide_000.zip").unlink()
    with pytest.raises(DataError, match="100 patches in a row could not be read"):
        batches(index, 1)


def test_few_archives_are_open_at_a_time(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path, num_archives=5, num_patches=1))
    archives = OpenArchives(max_open=2)
    before = num_open_files()
    first = archives.handle(index.archive(0))
    assert archives.handle(index.archive(0)) == first
    for number in range(5):
        archives.handle(index.archive(number))
    assert num_open_files() - before == 2
    archives.close()
    assert num_open_files() == before


def num_open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_open_archives_are_not_inherited(tmp_path: Path) -> None:
    index = build_index(make_dataset(tmp_path, num_archives=1))
    archives = OpenArchives()
    archives.handle(index.archive(0))
    assert pickle.loads(pickle.dumps(archives))._handles == {}
    archives._owner = -1  # as a forked child sees it
    archives.handle(index.archive(0))
    assert archives._owner == os.getpid()
    archives.close()
