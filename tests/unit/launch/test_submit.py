"""What a job of SLURM is given when it is submitted."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.config.load import build, nest
from adios_tme.launch import slurm
from adios_tme.launch.jobs import Embedding, Job, Training
from tests.factories import run_main, tiny_config


class Executor:
    """Takes jobs as submitit does, and keeps them."""

    def __init__(self, *_: object) -> None:
        self.jobs: list[Any] = []

    def submit(self, job: slurm.ClusterJob) -> types.SimpleNamespace:
        self.jobs.append(pickle.loads(pickle.dumps(job)).job)
        return types.SimpleNamespace(job_id="17", paths=types.SimpleNamespace(stdout="17.out"))


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    """What takes the jobs, in place of submitit."""
    executor = Executor()
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    monkeypatch.setattr(slurm, "_executor", lambda *_: executor)
    return executor


def training(**flags: Any) -> Training:
    return Training(tiny_config(Path("patches"), Path("run"), **flags))


def embedding(**flags: Any) -> Embedding:
    given = {"run": "run", "data_path": "patches", "output": "features", "num_workers": 3}
    return Embedding(build(EmbedConfig, nest(EmbedConfig, {**given, **flags})))


def test_a_job_finds_its_paths_from_any_folder(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "17" in slurm.submit(training(init_from="encoder"))
    (job,) = executor.jobs
    assert job.config.data.data_path == (str(tmp_path / "patches"),)
    assert job.config.run.output_dir == tmp_path / "run"
    assert job.config.run.init_from == str(tmp_path / "encoder")


@pytest.mark.parametrize(("given", "is_path"), [("run", True), ("timm:vit_tiny", False)])
def test_a_job_of_features_does_so_too(
    executor: Executor, given: str, is_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slurm.submit(embedding(run=given))
    (job,) = executor.jobs
    assert job.config.run == (str(tmp_path / given) if is_path else given)
    assert job.config.data_path == tmp_path / "patches"
    assert job.output_dir == tmp_path / "features"


@pytest.mark.parametrize("make", [training, embedding])
def test_what_is_asked_of_slurm_follows_from_the_settings(make: Any) -> None:
    job: Job = make(slurm=True, nnodes="1:2", gpus_per_node=4, time="1-00:00:00", num_workers=3)
    asked = slurm._parameters(job)
    assert asked["nodes"] == 2
    assert asked["gpus_per_node"] == 4
    assert asked["cpus_per_task"] == 4 * (1 + 3)
    assert asked["time"] == 24 * 60
    assert "gpus_per_node" not in slurm._parameters(make(slurm=True, device="cpu"))


def test_the_commands_submit_instead_of_working(
    executor: Executor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ("train --data-path patches", "embed run --data-path patches"):
        said = run_main(capsys, 0, *words.split(), "--slurm", "--nnodes", "2")
        assert "Submitted job 17. Its output: 17.out" in said.out
    assert [type(job) for job in executor.jobs] == [Training, Embedding]
    assert [job.launch.nnodes for job in executor.jobs] == ["2", "2"]
    assert list(tmp_path.iterdir()) == []


def test_features_that_cannot_be_written_are_told_before_a_job_is_submitted(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    said = run_main(capsys, 2, "embed", "run", "--data-path", "patches", "--slurm")
    assert "pip install 'adios-tme[hdf5]'" in said.err
    assert executor.jobs == []
