"""Given patches, each once and in order."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import build_index
from adios_tme.data.row_loader import RowLoader
from adios_tme.data.slots import Reading
from tests.factories import make_dataset


def read(
    index: DatasetIndex, rows: list[int], batch_size: int, num_workers: int
) -> tuple[list[list[int]], dict[int, torch.Tensor], list[str]]:
    """Rows of each batch, images by row, and what could not be read."""
    shown: list[list[int]] = []
    images: dict[int, torch.Tensor] = {}
    damaged: list[str] = []
    wanted = np.array(rows, dtype=np.int64)
    with closing(RowLoader(index, wanted, Reading(16, batch_size, num_workers))) as loader:
        for batch in loader:
            shown.append(batch.rows.tolist())
            on_device = batch.on(torch.device("cpu"), 16)
            assert len(on_device) == len(batch.rows)
            images |= dict(zip(shown[-1], on_device, strict=True))
            damaged.extend(patch.name for patch in batch.damaged)
    return shown, images, damaged


@pytest.mark.parametrize(("batch_size", "num_workers"), [(4, 0), (3, 2), (50, 1)])
def test_rows_come_once_and_in_order(tmp_path: Path, batch_size: int, num_workers: int) -> None:
    index = build_index(make_dataset(tmp_path))
    rows = [7, 2, 3, 11, 0, 5, 4]
    shown, images, damaged = read(index, rows, batch_size, num_workers)
    assert shown == [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    expected = PatchDataset(index, 16)
    for row, image in images.items():
        assert torch.equal(image, expected[row])
    assert damaged == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_cannot_be_read_is_left_out_and_nothing_takes_its_place(
    tmp_path: Path, num_workers: int
) -> None:
    index = build_index(make_dataset(tmp_path))
    path = tmp_path / "slide_001.zip"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[int(index.columns["offset"][5]) + 100] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shown, images, damaged = read(index, [4, 5, 6, 5, 7], 3, num_workers)
    assert shown == [[4, 6], [7]]
    assert damaged == ["patch_001_448_x448_y0.png"] * 2
    whole = PatchDataset(index, 16)
    assert all(torch.equal(images[row], whole[row]) for row in (4, 6, 7))
    assert read(index, [5], 2, num_workers)[0] == [[]]
