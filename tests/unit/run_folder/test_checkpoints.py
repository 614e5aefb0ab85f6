"""Checkpoints: whole or absent, verified, and loaded as networks."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from adios_tme import load_encoder, load_mask_model, load_student
from adios_tme.distributed.world import World
from adios_tme.errors import CheckpointError
from adios_tme.run_folder import checkpoint_writer, checkpoints
from adios_tme.run_folder.checkpoint_writer import CheckpointWriter
from adios_tme.run_folder.checkpoints import (
    checkpoint_digest,
    find_checkpoint,
    list_checkpoints,
    newest_whole_checkpoint,
    read_checkpoint,
    read_without_optimizers,
    remove_partial_writes,
    write_checkpoint,
)
from adios_tme.run_folder.layout import NEWEST, checkpoint_name
from adios_tme.training.state import Run
from tests.factories import VIT_UNET, tiny_config

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


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_that_somebody_saved_again_loads(is_zip: bool, tmp_path: Path) -> None:
    path = write_checkpoint(state(3), tmp_path)
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=is_zip)
    assert read_checkpoint(path)["student"]["w"].tolist() == [3.0] * 100
    (tmp_path / NEWEST).unlink()
    assert newest_whole_checkpoint(tmp_path) == path
    assert checkpoint_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("cut", [False, True])
def test_damage_after_it_was_saved_again_is_noticed(
    place: float, cut: bool, tmp_path: Path
) -> None:
    path = tmp_path / "again.pth"
    torch.save(state(1), path)
    content = bytearray(path.read_bytes())
    at = int(place * (len(content) - 1))
    if cut:
        del content[at:]
    else:
        content[at : at + 70] = bytes(byte ^ 1 for byte in content[at : at + 70])
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"again\.pth: is damaged or not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("how", ["ours", "again", "old format", "deflated"])
def test_networks_are_read_without_the_states_of_optimisers(how: str, tmp_path: Path) -> None:
    path = write_checkpoint(
        state(3) | {"student_optimizer": {}, "mask_optimizer": {}, "mask_average": None}, tmp_path
    )
    if how in ("again", "old format"):
        torch.save(torch.load(path), path, _use_new_zipfile_serialization=how == "again")
    if how == "deflated":  # what is packed cannot be used as it lies in the file
        torch.save(torch.load(path), tmp_path / "stored.zip")
        with (
            zipfile.ZipFile(tmp_path / "stored.zip") as stored,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as deflated,
        ):
            for name in stored.namelist():
                deflated.writestr(name, stored.read(name))
    read = read_without_optimizers(path)
    assert read.keys() == {"student", "mask_model", "config", "iteration", "mask_average"}
    assert read["student"]["w"].tolist() == [3.0] * 100
    read["student"]["w"].fill_(4)  # stays in memory
    assert read_checkpoint(path)["student"]["w"].tolist() == [3.0] * 100


def test_what_else_torch_saves_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"student": {}, "mask_model": {}}, path)
    with pytest.raises(CheckpointError, match="not written by adios-tme train: it lacks config"):
        read_checkpoint(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(CheckpointError, match="it lacks config, mask_model, student"):
        read_checkpoint(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match="holds Python objects other than tensors"):
        read_checkpoint(path)
    whole = write_checkpoint(state(1), tmp_path)
    whole.write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="its hash is damaged"):
        read_checkpoint(whole)


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
    with CheckpointWriter(tmp_path) as writer:
        writer.save(moving)
        moving["student"]["w"].fill_(-1)
    assert read_checkpoint(tmp_path / NEWEST)["student"]["w"].tolist() == [1.0] * 100


def test_the_writer_keeps_some_for_evaluation_and_the_newest_two(tmp_path: Path) -> None:
    for last in range(2, 15, 2):
        with CheckpointWriter(tmp_path, keep_every=4) as writer:
            writer.save(state(last))
    assert [number for number, _ in list_checkpoints(tmp_path)] == [4, 8, 12, 14]


class SlowDisk:
    """Holds every write back until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._write = checkpoints.write_checkpoint
        monkeypatch.setattr(checkpoint_writer, "write_checkpoint", self.write)

    def write(self, state: dict[str, Any], run_dir: Path) -> Path:
        self.begun.set()
        assert self.go_on.wait(60)
        return self._write(state, run_dir)


def test_training_never_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = SlowDisk(monkeypatch)
    with CheckpointWriter(tmp_path) as writer:
        writer.save(state(1))
        assert disk.begun.wait(60)
        for iteration in (2, 3):
            writer.save(state(iteration))  # returns, although nothing has been written
        assert list_checkpoints(tmp_path) == []
        disk.go_on.set()
    assert [number for number, _ in list_checkpoints(tmp_path)] == [1, 3]
    assert "checkpoint_iter_00000002.pth is left out" in caplog.text


def test_one_failed_write_is_a_warning_and_two_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.fsync", full_disk)
    writer = CheckpointWriter(tmp_path)
    for iteration, given_up in ((1, False), (2, True)):
        writer.save(state(iteration))
        writer._writes[-1].result(timeout=60)
        assert (writer.gave_up() is not None) == given_up
    assert caplog.text.count("Training goes on until the next checkpoint") == 1
    with pytest.raises(CheckpointError, match="No space left"):
        writer.close()


def test_a_write_that_succeeds_forgives_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointWriter(tmp_path) as writer:
        for iteration in range(1, 6):
            with pytest.MonkeyPatch.context() as patch:
                if iteration % 2:
                    patch.setattr("os.fsync", full_disk)
                writer.save(state(iteration))
                writer._writes[-1].result(timeout=60)
            assert writer.gave_up() is None
        writer.save(state(6))
    assert [number for number, _ in list_checkpoints(tmp_path)] == [2, 4, 6]


def test_the_last_write_of_all_may_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", full_disk)
    with (
        pytest.raises(CheckpointError, match="No space left"),
        CheckpointWriter(tmp_path) as writer,
    ):
        writer.save(state(1))


def test_a_passed_one_that_cannot_be_removed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".pth":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(path, missing_ok)

    real = Path.unlink
    monkeypatch.setattr(Path, "unlink", refused)
    for iteration in (1, 2, 3):
        with CheckpointWriter(tmp_path, keep_every=4) as writer:
            writer.save(state(iteration))
    assert [number for number, _ in list_checkpoints(tmp_path)] == [1, 2, 3]
    assert "00000001.pth: cannot be removed (Permission denied)" in caplog.text


@pytest.mark.parametrize("is_last", [False, True])
def test_an_error_that_is_none_of_the_disk_is_not_hidden(
    is_last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    writer = CheckpointWriter(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "write_checkpoint", broken)
        writer.save(state(1))
        assert isinstance(writer._writes[-1].exception(timeout=60), ZeroDivisionError)
    what_follows = writer.close if is_last else lambda: writer.save(state(2))
    with pytest.raises(ZeroDivisionError):
        what_follows()


def test_a_folder_that_was_lost_is_not_written_to(tmp_path: Path) -> None:
    def not_ours() -> None:
        raise CheckpointError("the folder is another run's now")

    with (
        pytest.raises(CheckpointError, match="another run's"),
        CheckpointWriter(tmp_path, check_owner=not_ours) as writer,
    ):
        writer.save(state(1))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_newest_one_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest_whole_checkpoint(tmp_path) is None
    paths = [write_checkpoint(state(iteration), tmp_path) for iteration in (1, 2, 3)]
    assert newest_whole_checkpoint(tmp_path) == paths[2]
    with paths[2].open("r+b") as file:  # and so checkpoint.pth, which is the same file
        file.truncate(paths[2].stat().st_size // 2)
    assert newest_whole_checkpoint(tmp_path) == paths[1]
    assert caplog.text.count("falling back to the checkpoint before it") == 1
    for path in paths[:2]:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints is whole"):
        newest_whole_checkpoint(tmp_path)


def test_a_copy_called_newest_counts_where_links_do_not(tmp_path: Path) -> None:
    path = write_checkpoint(state(1), tmp_path)
    copy = tmp_path / NEWEST
    copy.unlink()
    copy.write_bytes(path.read_bytes())
    path.unlink()
    assert newest_whole_checkpoint(tmp_path) == copy


@pytest.mark.parametrize("seed", range(8))
def test_a_checkpoint_cut_at_any_byte_is_passed_over(seed: int, tmp_path: Path) -> None:
    before, newest = (write_checkpoint(state(iteration), tmp_path) for iteration in (1, 2))
    size = newest.stat().st_size
    with newest.open("r+b") as file:
        file.truncate(random.Random(seed).randrange(size))
    assert newest_whole_checkpoint(tmp_path) == before


def test_what_killed_writes_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pth.17.partial").write_bytes(b"half")
    path = write_checkpoint(state(1), tmp_path)
    remove_partial_writes(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {NEWEST, path.name}


@pytest.mark.parametrize("mask_model", ["adios", "vit_unet"])
def test_networks_are_loaded_from_a_run(mask_model: str, tmp_path: Path) -> None:
    networks = VIT_UNET if mask_model == "vit_unet" else {}
    config = tiny_config(tmp_path, tmp_path, **networks)
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
