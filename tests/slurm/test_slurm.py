"""Jobs on a real SLURM of two nodes; run by ``nox -s slurm``."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adios_tme.launch.jobs import Training
from adios_tme.launch.slurm import ClusterJob
from adios_tme.run_folder.checkpoints import read_checkpoint
from tests.factories import (
    as_flags,
    command,
    make_dataset,
    run_command,
    tiny_config,
    tiny_settings,
    untrained_run,
)
from tests.faults.test_kill import assert_same
from tests.slurm.cluster import Cluster, wait_until, why_not

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(why_not()), reason=f"no SLURM here: {why_not()}"),
]
DOCS = Path(__file__).parents[2] / "docs"
#: More iterations than a job does before its signal comes, 70 to 100 seconds after its start.
LONG = 1200


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/dev/shm"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        try:
            running = stack.enter_context(Cluster(folder))
        except AssertionError as error:
            pytest.skip(reason=f"this machine does not let the daemons of SLURM run: {error}")
        yield running


def flags(folder: Path, run: str, **settings: Any) -> list[str]:
    make_dataset(folder / "data")
    shape = {"nproc_per_node": 1, "total_iterations": LONG, "save_freq": 500, "log_freq": 20}
    return as_flags(tiny_settings(folder / "data", folder / run, **shape | settings))


def submit(cluster: Cluster, *arguments: str, what: str = "train") -> str:
    said = cluster.run(*command(what, *arguments, "--slurm"))
    found = re.search(r"Submitted job (\d+)", said)
    assert found, said
    return found[1]


def final_weights(run: Path) -> dict[str, Any]:
    state = read_checkpoint(run / "checkpoint.pth")
    kept = ("student", "mask_model", "student_optimizer", "mask_optimizer", "rng", "iteration")
    return {name: state[name] for name in kept}


def test_a_job_that_is_cut_off_ends_with_the_weights_of_one_that_was_not(
    cluster: Cluster, tmp_path: Path
) -> None:
    limits = ("--nnodes", "2", "--time", "2", "--signal-seconds", "35")
    job = submit(cluster, *flags(tmp_path, "cut"), *limits)
    straight = submit(cluster, *flags(tmp_path, "straight"), "--nnodes", "2", "--time", "60")
    cluster.wait_for(job, "RUNNING", 240)
    cluster.wait_for(job, "PENDING", 240)  # its time is over
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")  # once is enough
    cluster.wait_for(job, "COMPLETED", 1200)
    assert cluster.state(job) == "COMPLETED 1"
    log = (tmp_path / "cut" / "train.log").read_text()
    assert "4 x 2 ranks" in log
    assert "random streams restored" in log

    cluster.wait_for(straight, "COMPLETED", 1200)
    assert cluster.state(straight) == "COMPLETED 0"
    assert_same(final_weights(tmp_path / "cut"), final_weights(tmp_path / "straight"))


def test_a_cancelled_job_saves_and_stays_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = flags(tmp_path, "run", total_iterations=100_000)
    job = submit(cluster, *arguments, "--nnodes", "2", "--time", "60")
    wait_for_metrics(run)
    cluster.run("scancel", job)
    cluster.wait_for(job, "CANCELLED", 240)
    assert cluster.state(job) == "CANCELLED 0"
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] > 0


def test_a_node_that_dies_costs_a_new_turn_on_the_nodes_that_are_left(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = flags(tmp_path, "run", total_iterations=300, save_freq=20)
    job = submit(cluster, *arguments, "--nnodes", "1:2", "--time", "60")
    wait_for_metrics(run)
    cluster.kill_node("n2")
    try:
        cluster.wait_for(job, "PENDING", 240)  # SLURM itself requeues it
    finally:
        cluster.start_node("n2")
    cluster.wait_for(job, "COMPLETED", 600)
    assert int(cluster.state(job).split()[1]) >= 1
    assert "Resumed" in (run / "train.log").read_text()


def test_the_documented_script_requeues_on_its_signal(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = DOCS / "examples" / "train.sbatch"
    arguments = flags(tmp_path, "run", total_iterations=300)
    path = f"--export=ALL,PATH={path_with_command()}"
    sbatch = ["sbatch", "--parsable", path, "--cpus-per-task=2", "--time=60", str(script)]
    job = cluster.run(*sbatch, *arguments, cwd=tmp_path).strip()
    wait_for_metrics(run)
    cluster.run("scancel", "--signal=USR1", job)  # as the time limit would
    cluster.wait_for(job, "PENDING", 240)
    cluster.wait_for(job, "COMPLETED", 600)
    assert cluster.state(job) == "COMPLETED 1"
    assert "Resumed" in (run / "train.log").read_text()
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] == 300


def test_features_go_on_with_the_slides_that_are_left(cluster: Cluster, tmp_path: Path) -> None:
    run, out = untrained_run(tmp_path / "encoder"), tmp_path / "features"
    data = make_dataset(tmp_path / "data", num_archives=60, num_patches=40)
    shape = {"data-path": data, "output": out, "batch-size": 1, "num-workers": 0, "device": "cpu"}
    wishes = ("--nproc-per-node", "1", "--nnodes", "2", "--time", "60")
    job = submit(cluster, str(run), *as_flags(shape), *wishes, what="embed")

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("448px/features_encoder/*.h5")}

    wait_until(lambda: len(written()) > 3, "the first slides", 240)
    cluster.run("scancel", "--signal=USR2", job)  # as the time limit would
    cluster.wait_for(job, "PENDING", 240)
    before = written()
    assert 3 < len(before) < 60
    cluster.wait_for(job, "COMPLETED", 600)
    assert cluster.state(job) == "COMPLETED 1"
    assert len(written()) == 60
    assert {path: written()[path] for path in before} == before
    logs = "".join(path.read_text() for path in (out / "slurm").glob("*_log.out"))
    assert f"{len(before)} of 60 slides are finished already." in " ".join(logs.split())


class InAJob:
    """What submitit knows of the machine."""

    raw_job_id, hostnames, global_rank = "17", ("n1",), 0

    @staticmethod
    def _usr_sig() -> signal.Signals:
        return signal.SIGUSR2


def test_a_signal_after_the_end_does_not_spoil_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("submitit.JobEnvironment", InAJob)
    monkeypatch.setattr("adios_tme.launch.local.Launch.run", lambda *_: tmp_path / "last.pth")
    before = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    try:
        config = tiny_config(make_dataset(tmp_path / "data"), tmp_path / "run")
        job = ClusterJob(Training(config))
        assert job() == str(tmp_path / "last.pth")
        signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_dry_run_shows_the_script_and_leaves_no_trace(tmp_path: Path) -> None:
    wishes = ("--nnodes", "2", "--partition", "main", "--time", "1-00:00:00", "--mem-gb", "8")
    found = run_command("train", *flags(tmp_path, "run"), "--slurm", "--dry-run", *wishes)
    assert found.returncode == 0, found.stderr
    for line in ("--nodes=2", "--partition=main", "--time=1440", "--mem=8GB", "--signal=USR2@120"):
        assert f"#SBATCH {line}\n" in found.stdout
    assert not (tmp_path / "run").exists()


def test_dry_run_shows_the_script_of_features(tmp_path: Path) -> None:
    words = ("run", "--data-path", "patches", "--output", tmp_path / "out")
    wishes = ("--nnodes", "3", "--qos", "low", "--signal-seconds", "60")
    found = run_command("embed", *words, "--slurm", "--dry-run", *wishes)
    assert found.returncode == 0, found.stderr
    for line in ("--nodes=3", "--qos=low", "--signal=USR2@60", "--requeue"):
        assert f"#SBATCH {line}\n" in found.stdout
    assert not (tmp_path / "out").exists()


def wait_for_metrics(run: Path) -> None:
    wait_until((run / "metrics.jsonl").exists, "the first line of metrics", 240)


def path_with_command() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"
