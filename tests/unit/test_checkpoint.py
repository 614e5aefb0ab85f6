"""Checkpoints: whole or absent, verified, and loaded as networks."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from adios_tme import load_encoder, load_mask_model, load_student
from adios_tme.checkpoint import (
    NEWEST,
    CheckpointWriter,
    checkpoint_name,
    find_checkpoint,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from adios_tme.distributed import World
from adios_tme.errors import CheckpointError
from adios_tme.training.state import Run
from tests.factories import tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))


def state(iteration: int) -> dict[str, Any]:
    weights = {"w": torch.full((100,), float(iteration))}
    return {"student": weights, "mask_model": {}, "config": {}, "iteration": iteration}


def test_names_count_finished_updates() -> None:
    assert checkpoint_name(12_000) == "checkpoint_iter_00012000.pth"


def test_what_is_written_is_read_back_and_is_the_newest(tmp_path: Path) -> None:
    for iteration in (1, 2):
        write_checkpoint(state(iteration), tmp_path)
    assert [number for number, _ in list_checkpoints(tmp_path)] == [1, 2]
    assert find_checkpoint(tmp_path) == tmp_path / NEWEST
    for path in (tmp_path / NEWEST, tmp_path / checkpoint_name(2)):
        read = read_checkpoint(path)
        assert read["iteration"] == 2
        assert read["student"]["w"].tolist() == [2.0] * 100
    assert sorted(os.listdir(tmp_path)) == [NEWEST, checkpoint_name(1), checkpoint_name(2)]  # noqa: PTH208


def test_torch_reads_it_safely(tmp_path: Path) -> None:
    path = write_checkpoint(state(3), tmp_path)
    assert torch.load(path, weights_only=True)["iteration"] == 3


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99, 1.0])
def test_one_flipped_byte_is_noticed(place: float, tmp_path: Path) -> None:
    path = write_checkpoint(state(1), tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged or not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\3\4" * 50])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="Use another"):
        read_checkpoint(tmp_path / "x.pth")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        find_checkpoint(tmp_path / "no")


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_older_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(state(1), tmp_path)
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        write_checkpoint(state(2), tmp_path)
    assert read_checkpoint(find_checkpoint(tmp_path))["iteration"] == 1
    assert list(tmp_path.glob("*partial*")) == []


def test_the_writer_copies_before_it_returns(tmp_path: Path) -> None:
    moving = state(1)
    with CheckpointWriter(tmp_path, keep=None) as writer:
        writer.save(moving)
        moving["student"]["w"].fill_(-1)
    assert read_checkpoint(tmp_path / NEWEST)["student"]["w"].tolist() == [1.0] * 100


def test_the_writer_keeps_the_newest_few(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, keep=2) as writer:
        for iteration in range(1, 6):
            writer.save(state(iteration))
    assert [number for number, _ in list_checkpoints(tmp_path)] == [4, 5]


def test_one_failed_write_is_a_warning_and_two_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.fsync", full_disk)
    writer = CheckpointWriter(tmp_path, keep=None)
    writer.save(state(1))
    writer.save(state(2))
    assert "Training goes on until the next checkpoint" in caplog.text
    with pytest.raises(CheckpointError, match="No space left"):
        writer.save(state(3))
    writer.close()


@pytest.mark.parametrize("mask_model", ["adios", "vit_unet"])
def test_networks_are_loaded_from_a_run(mask_model: str, tmp_path: Path) -> None:
    options = {"mask_encoder_dim": 64, "mask_encoder_depth": 4} if mask_model == "vit_unet" else {}
    config = tiny_config(tmp_path, tmp_path, mask_model_type=mask_model, **options)
    run = Run.build(config, WORLD)
    write_checkpoint(run.state(), tmp_path)
    images = torch.randn(2, 3, 32, 32)
    student, encoder = load_student(tmp_path), load_encoder(tmp_path)
    run.bare_student.eval()
    with torch.no_grad():
        torch.testing.assert_close(student(images), run.bare_student(images))
        torch.testing.assert_close(encoder(images), run.bare_student.encoder(images))
    generator = load_mask_model(tmp_path)
    unit = (images * generator.normalise.std + generator.normalise.mean).clamp(0, 1)
    run.bare_mask_model.eval()
    with torch.no_grad():
        expected = run.bare_mask_model(generator.normalise(unit))
    torch.testing.assert_close(generator(unit), expected)
