"""One run at a time in a folder."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adios_tme.errors import CheckpointError, ConfigError, DataError
from adios_tme.run_folder import lock
from adios_tme.run_folder.layout import LOCK
from adios_tme.run_folder.lock import SILENCE_SECONDS, Owner, RunLock, owner_of_this_run


@pytest.fixture(autouse=True)
def _outside_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.01)  # nobody else takes a folder over here


@pytest.fixture
def here() -> Owner:
    return owner_of_this_run()


@pytest.fixture
def other(here: Owner) -> Owner:
    """A run of another launch whose process is alive: the one that runs the tests."""
    return dataclasses.replace(here, launches=("other",), began=here.began)


def elsewhere(owner: Owner) -> Owner:
    return dataclasses.replace(owner, host="another machine", launches=("there",))


def silence(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / LOCK, (then, then))


def test_a_lock_is_there_while_the_run_is_and_gone_after_it(tmp_path: Path, here: Owner) -> None:
    folder = tmp_path / "run"
    with RunLock(folder, here) as held:
        assert f'"pid": {os.getpid()}' in (folder / LOCK).read_text()
        assert held.is_new_launch
        held.check()
    assert list(folder.iterdir()) == []


def test_a_second_run_is_refused_and_the_first_one_goes_on(
    tmp_path: Path, here: Owner, other: Owner
) -> None:
    with RunLock(tmp_path, here) as held:
        with (
            pytest.raises(ConfigError, match=rf"is in use by process {os.getpid()} on .*--output"),
            RunLock(tmp_path, other),
        ):
            pass
        held.check()


def test_a_lock_of_a_dead_process_is_taken_over(
    tmp_path: Path, here: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = dataclasses.replace(here, pid=dead.pid, launches=("before",))
    reused = dataclasses.replace(
        here, began="1", launches=("before",)
    )  # the id, by another process
    for number, stale in enumerate((gone, reused)):
        folder = tmp_path / str(number)
        RunLock(folder, stale).__enter__()._ended.set()
        with RunLock(folder, here) as held:
            assert held.is_new_launch
            held.check()
    assert caplog.text.count("taking the folder over") == 2


def test_an_owner_on_another_machine_is_believed_until_it_is_silent(
    tmp_path: Path, here: Owner
) -> None:
    RunLock(tmp_path, elsewhere(here)).__enter__()._ended.set()
    silence(tmp_path, SILENCE_SECONDS / 2)
    with pytest.raises(ConfigError, match="last sign of life 30 s ago"):
        RunLock(tmp_path, here).__enter__()
    silence(tmp_path, SILENCE_SECONDS + 5)
    with RunLock(tmp_path, here) as held:
        held.check()


def test_the_same_launch_takes_its_folder_back_at_once(tmp_path: Path, here: Owner) -> None:
    there = dataclasses.replace(elsewhere(here), launches=("gone", *here.launches))
    RunLock(tmp_path, there).__enter__()._ended.set()
    with RunLock(tmp_path, here) as held:
        assert not held.is_new_launch


def test_the_same_job_of_a_scheduler_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert "slurm::17" in owner_of_this_run().launches


def test_an_empty_lock_is_respected_while_it_is_young(tmp_path: Path, here: Owner) -> None:
    (tmp_path / LOCK).touch()
    with pytest.raises(ConfigError, match="another process"):
        RunLock(tmp_path, here).__enter__()
    silence(tmp_path, SILENCE_SECONDS + 5)
    with RunLock(tmp_path, here):
        pass


def test_whoever_loses_the_folder_notices(tmp_path: Path, here: Owner, other: Owner) -> None:
    with RunLock(tmp_path, here) as held:
        (tmp_path / LOCK).unlink()
        with (
            RunLock(tmp_path, other),
            pytest.raises(CheckpointError, match="has taken the folder over"),
        ):
            held.check()


def test_an_error_before_anything_was_written_leaves_no_folder(tmp_path: Path, here: Owner) -> None:
    folder = tmp_path / "run"
    with pytest.raises(DataError), RunLock(folder, here):
        raise DataError("no patches")
    assert not folder.exists()
