"""What a job of SLURM is given when it is submitted."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from adios_tme.launch import slurm
from tests.factories import tiny_config


class Executor:
    """Takes jobs as submitit does, and keeps them."""

    def __init__(self, *_: object) -> None:
        self.jobs: list[slurm.TrainJob] = []

    def submit(self, job: slurm.TrainJob) -> types.SimpleNamespace:
        self.jobs.append(job)
        return types.SimpleNamespace(job_id="17", paths=types.SimpleNamespace(stdout="17.out"))


def test_a_job_finds_its_paths_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Executor()
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    monkeypatch.setattr(slurm, "_executor", lambda *_: executor)
    monkeypatch.chdir(tmp_path)
    assert "17" in slurm.submit(tiny_config(Path("patches"), Path("run"), init_from="encoder"))
    (job,) = executor.jobs
    assert job.config.data.data_path == (str(tmp_path / "patches"),)
    assert job.config.run.output_dir == tmp_path / "run"
    assert job.config.run.init_from == str(tmp_path / "encoder")
