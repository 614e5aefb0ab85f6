"""Disks that fill up, writes that are killed anywhere, damaged files, two runs in one folder."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from adios_tme.errors import CheckpointError
from adios_tme.run_folder import checkpoint_writer, checkpoints
from adios_tme.run_folder.checkpoints import (
    list_checkpoints,
    newest_whole_checkpoint,
    read_checkpoint,
)
from adios_tme.training.loop import run_training
from tests.factories import as_flags, make_dataset, run_command, tiny_config, tiny_settings
from tests.faults.launching import launched
from tests.faults.test_kill import assert_same, final_state
from tests.fork_server import run_forked, run_script


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for one checkpoint."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip(reason="needs root and the right to mount a tmpfs, to fill a disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_told_and_stops_the_run_at_the_second_try(
    small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_dataset(tmp_path / "data")
    shape = {"total_iterations": 12, "save_freq": 3}
    config = tiny_config(tmp_path / "data", small_disk / "run", **shape)
    with pytest.raises(CheckpointError, match=r"could not be written \(No space left on device"):
        run_training(config)
    run = small_disk / "run"
    assert caplog.text.count("Training goes on until the next checkpoint") == 1
    assert [iteration for iteration, _ in list_checkpoints(run)] == [3]
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] == 3
    assert list(run.glob(".checkpoint*.partial")) == []
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert len(lines) >= 9  # beyond the first failure

    subprocess.run(["mount", "-o", "remount,size=90m", str(small_disk)], check=True)
    run_training(config)
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] == 12


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.thorough) for s in (1, 2))]
)
def test_a_checkpoint_cut_at_a_random_byte_costs_its_iterations_and_nothing_else(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_dataset(tmp_path / "data")
    for name in ("run", "straight"):
        run_training(tiny_config(tmp_path / "data", tmp_path / name, total_iterations=6))
    cut = newest_whole_checkpoint(tmp_path / "run")
    assert cut is not None
    with cut.open("r+b") as file:
        file.truncate(random.Random(seed).randrange(cut.stat().st_size))
    run_training(tiny_config(tmp_path / "data", tmp_path / "run", total_iterations=6))
    assert f"{cut}: is damaged; falling back to the checkpoint before it" in caplog.text
    assert_same(final_state(tmp_path / "run"), final_state(tmp_path / "straight"))


#: Calls that touch the disk, and those of them after which it matters most what is left.
CALLS = {"write", "seek", "read", "flush", "fsync", "replace", "link", "unlink", "open", "close"}
LATE_CALLS = {"fsync", "replace", "link"}


def kill_within_writes(num_kills: int, run: Path, *flags: str) -> None:
    """Fork for each kill a process that trains and dies in a write; tell what each has left."""
    num_partial = 0
    for seed in range(num_kills):
        if (child := os.fork()) == 0:
            train_and_die_within_the_second_write(seed, *flags)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
        num_partial += bool(list(run.glob(".checkpoint*.partial")))
        whole, newest = newest_whole_checkpoint(run), list_checkpoints(run)[-1]
        assert whole == newest[1], (whole, newest)  # never a damaged one in its place
        sys.stdout.write(f"{seed} {newest[0]} {num_partial}\n")


def train_and_die_within_the_second_write(seed: int, *flags: str) -> None:
    """Die with -9 before a random one of the calls that touch the disk."""
    draw, writes = random.Random(seed), 0
    real = checkpoints.write_checkpoint

    def write(state: dict[str, Any], run_dir: Path) -> Path:
        nonlocal writes
        writes += 1
        if writes < 2:
            return real(state, run_dir)
        calls = draw.choice([draw.randrange(600), draw.randrange(600, 640)])

        def count(frame: FrameType, event: str, function: Any) -> None:
            nonlocal calls
            if event == "c_call" and function.__name__ in CALLS:
                calls -= 1
                if calls < 0 or (function.__name__ in LATE_CALLS and draw.random() < 0.3):
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        real(state, run_dir)
        os.kill(os.getpid(), signal.SIGKILL)  # the write was whole: at its very end
        raise AssertionError("outlived kill -9")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_writer, "write_checkpoint", write)
        run_script("train", *flags)


@pytest.mark.parametrize("num_kills", [4, pytest.param(50, marks=pytest.mark.thorough)])
def test_kills_within_writes_leave_a_whole_checkpoint(num_kills: int, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    shape = {"total_iterations": 10_000, "save_freq": 1}
    flags = as_flags(tiny_settings(tmp_path / "data", run, **shape))
    done = run_forked(kill_within_writes, num_kills, run, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    seed, iteration, num_partial = map(int, last.split())
    assert seed == num_kills - 1
    assert iteration >= num_kills  # each start went on from what the one before had left
    assert num_partial >= num_kills // 4  # the kills did fall within writes


def test_a_second_run_in_the_folder_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    flags = as_flags(tiny_settings(tmp_path / "data", run, total_iterations=100_000))
    with launched(tmp_path / "log", "train", *flags) as first:
        first.wait_for((run / "metrics.jsonl").exists)
        for extra in ([], ["--overwrite"]):
            second = run_command("train", *flags, *extra)
            assert second.returncode == 2, second.stderr
            assert f"is in use by process {first.process.pid} on " in second.stderr
        assert first.process.poll() is None
        assert (run / "metrics.jsonl").exists()
        first.process.kill()
        first.process.wait()
    assert (run / "run.lock").exists()
    with launched(tmp_path / "log", "train", *flags) as third:
        third.wait_for(lambda: "Resumed" in third.said())
        assert "was left behind" in third.said()
        third.process.send_signal(signal.SIGTERM)
        assert third.wait() == 143
    assert not (run / "run.lock").exists()
