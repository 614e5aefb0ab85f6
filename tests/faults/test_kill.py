"""Runs that are killed, interrupted or poisoned, and what is left of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adios_tme.config.data import DataConfig
from adios_tme.data.augment import augment
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.members import Kind
from adios_tme.data.sources import READERS
from adios_tme.errors import TrainingDivergedError
from adios_tme.run_folder import checkpoints
from adios_tme.run_folder.checkpoints import list_checkpoints, read_checkpoint
from adios_tme.training.loop import run_training
from tests.factories import (
    VIT_UNET,
    as_flags,
    make_dataset,
    run_command,
    tiny_config,
    tiny_settings,
)
from tests.faults.launching import children_of, forked, installed, kill, launched
from tests.fork_server import run_forked, run_script


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal, bit for bit, all the way down."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where


def final_state(run: Path) -> dict[str, Any]:
    state = read_checkpoint(run / "checkpoint.pth")
    del state["config"]["run"]["output_dir"]
    return state


def settings(folder: Path, run: str, **flags: Any) -> list[str]:
    """A run with everything random in play."""
    random = {"drop_path_rate": 0.2, "crops_per_mask": 1, "num_workers": 1, "views": "two"}
    random |= {"augment": "full", "augment_colour": 0.4, "augment_blur": 0.5, "augment_crop": 0.5}
    return as_flags(tiny_settings(folder / "data", folder / run, **random | flags))


@pytest.mark.parametrize(
    "mask_model", ["adios", pytest.param("vit_unet", marks=pytest.mark.elastic)]
)
def test_killed_and_resumed_is_the_same_as_straight(mask_model: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    networks = VIT_UNET if mask_model == "vit_unet" else {}
    shape = networks | {"total_iterations": 6, "save_freq": 2}
    straight = run_command("train", *settings(tmp_path, "straight", **shape))
    assert straight.returncode == 0, straight.stderr

    flags = settings(tmp_path, "killed", **shape)
    with forked(tmp_path / "log", train_and_stop, 4, *flags) as halfway:
        halfway.wait_for(lambda: list_checkpoints(tmp_path / "killed"))
        halfway.wait_for(lambda: "stands still" in halfway.said())
    assert [iteration for iteration, _ in list_checkpoints(tmp_path / "killed")] == [2]
    resumed = run_command("train", *flags)
    assert resumed.returncode == 0, resumed.stderr
    assert "random streams restored" in resumed.stderr
    assert_same(final_state(tmp_path / "killed"), final_state(tmp_path / "straight"))


def train_and_stop(iteration: int, *flags: str) -> None:
    """Train until the middle of an iteration, and stand still there."""
    count = 0

    def stand_still(images: torch.Tensor, data: DataConfig) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 2 * iteration:  # both views of it
            sys.stderr.write("stands still\n")
            time.sleep(600)
        return augment(images, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adios_tme.training.feed.augment", stand_still)
        run_script("train", *flags)


def train_and_die_in_the_second_write(*flags: str) -> None:
    writes = 0
    real = checkpoints._save_with_hash

    def save(state: dict[str, Any], file: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 2:
            file.write(b"the first half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        real(state, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "_save_with_hash", save)
        run_script("train", *flags)


def test_a_kill_within_a_checkpoint_write_loses_nothing_but_time(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    flags = settings(tmp_path, "run")
    killed = run_forked(train_and_die_in_the_second_write, *flags)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = tmp_path / "run"
    assert len(list(run.glob(".checkpoint*.partial"))) == 1
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] == 2
    assert [iteration for iteration, _ in list_checkpoints(run)] == [2]
    assert run_command("train", *flags).returncode == 0
    assert run_command("train", *settings(tmp_path, "straight")).returncode == 0
    assert_same(final_state(run), final_state(tmp_path / "straight"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_a_signal_saves_and_leaves(number: signal.Signals, code: int, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    flags = settings(tmp_path, "run", total_iterations=100_000, save_freq=50_000)
    # One of them in a process as users start it.
    start = installed if number is signal.SIGTERM else launched
    with start(tmp_path / "log", "train", *flags) as process:
        process.wait_for((run / "metrics.jsonl").exists)
        process.process.send_signal(number)
        assert process.wait() == code, process.said()
    said = process.said()
    assert "the checkpoint is saved" in said
    assert "Traceback" not in said
    stopped_at = read_checkpoint(run / "checkpoint.pth")["iteration"]
    assert f"stopped after iteration {stopped_at}" in said


@pytest.mark.elastic
def test_a_signal_stops_all_processes(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    flags = settings(tmp_path, "run", total_iterations=100_000, save_freq=50_000, nproc_per_node=2)
    with launched(tmp_path / "log", "train", *flags) as started:
        started.wait_for((run / "metrics.jsonl").exists)
        started.process.send_signal(signal.SIGTERM)
        assert started.wait() == 143, started.said()
    assert "the checkpoint is saved" in started.said()
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] > 0


@pytest.mark.elastic
def test_a_killed_loader_worker_ends_every_rank_with_one_message(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    flags = settings(tmp_path, "run", total_iterations=100_000, nproc_per_node=2)
    with launched(tmp_path / "log", "train", *flags) as started:
        started.wait_for((tmp_path / "run" / "metrics.jsonl").exists)
        ranks = [pid for pid in started.workers() if children_of(pid)]
        kill(children_of(ranks[0])[0])
        assert started.wait() == 1, started.said()
    assert started.said().count("was killed by SIGKILL") == 1
    assert "Traceback" not in started.said()


@pytest.mark.elastic
def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    make_dataset(tmp_path / "data")
    shape = {"total_iterations": 20, "save_freq": 5, "nproc_per_node": 2, "num_workers": 0}
    with launched(tmp_path / "log", "train", *settings(tmp_path, "run", **shape)) as started:
        started.wait_for(lambda: list_checkpoints(tmp_path / "run"))
        kill(started.workers()[-1])
        assert started.wait() == 0, started.said()
    assert started.said().count("Resumed") == 1
    straight = run_command("train", *settings(tmp_path, "straight", **shape))
    assert straight.returncode == 0, straight.stderr
    one, other = (final_state(tmp_path / name) for name in ("run", "straight"))
    assert_same(one["student"], other["student"])
    assert_same(one["mask_model"], other["mask_model"])


def test_batches_of_nan_stop_the_run_and_name_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "data")
    config = tiny_config(tmp_path / "data", tmp_path / "run", total_iterations=20, save_freq=3)
    count = 0

    def poison(images: torch.Tensor, data: DataConfig) -> torch.Tensor:
        nonlocal count
        count += 1
        return images if count <= 4 else torch.full(images.shape, float("nan"))

    def write_slowly(state: dict[str, Any], folder: Path) -> Path:
        time.sleep(0.3)  # the run is told of the NaN while the checkpoint is still on its way
        return checkpoints.write_checkpoint(state, folder)

    monkeypatch.setattr("adios_tme.run_folder.checkpoint_writer.write_checkpoint", write_slowly)
    monkeypatch.setattr("adios_tme.training.feed.augment", poison)
    with pytest.raises(
        TrainingDivergedError, match=r"stayed non-finite until iteration 7.*"
    ) as error:
        run_training(config)
    assert "checkpoint_iter_00000006.pth" in str(error.value)
    saved = read_checkpoint(tmp_path / "run" / "checkpoint.pth")
    assert saved["iteration"] == 6
    assert all(weight.isfinite().all() for weight in saved["student"].values())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["student_loss"] is None for line in lines] == [False] * 4 + [True] * 3


def test_too_much_damage_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adios_tme.data.corrupt.FEWEST_JUDGED", 10)
    make_dataset(tmp_path / "data")
    config = tiny_config(tmp_path / "data", tmp_path / "run", total_iterations=50)
    monkeypatch.setitem(READERS, Kind.ZIP, _fail_on("patch_001"))
    with pytest.raises(Exception, match="patches could not be read, more than the fraction"):
        run_training(config)


def _fail_on(part: str) -> Callable[..., bytes]:
    read_member = READERS[Kind.ZIP]

    def read(handle: int, member: Any) -> bytes:
        if part in member.name:
            raise CorruptPatchError("made up")
        return read_member(handle, member)

    return read
