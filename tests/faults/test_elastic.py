"""Processes and machines that are killed, vanish, join, hang or lose each other."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adios_tme.run_folder.checkpoints import read_checkpoint
from tests.factories import as_flags, command, make_dataset, tiny_settings
from tests.faults.launching import (
    Started,
    check_every_patch_once,
    kill,
    last_iteration,
    launched,
    running,
)
from tests.spawn import reserve_port

pytestmark = pytest.mark.elastic
DOCS = Path(__file__).parents[2] / "docs"
NUM_PATCHES = 12  # not a multiple of any batch here, so that batches cross from epoch to epoch
BATCH = 4
SAVE_FREQ = 3


def flags(folder: Path, **settings: Any) -> list[str]:
    steady = {"batch_size_per_gpu": BATCH, "save_freq": SAVE_FREQ, "log_samples": "true"}
    return as_flags(tiny_settings(folder / "data", folder / "run", **steady | settings))


@pytest.mark.parametrize(
    "num_kills", [2, pytest.param(20, marks=[pytest.mark.thorough, pytest.mark.timeout(3000)])]
)
def test_kills_of_random_workers_at_random_moments(num_kills: int, tmp_path: Path) -> None:
    draw = random.Random(num_kills)
    make_dataset(tmp_path / "data")
    run, total = tmp_path / "run", 8 * (num_kills + 2)
    arguments = flags(
        tmp_path, nproc_per_node=2, max_restarts=num_kills + 2, total_iterations=total
    )
    with launched(tmp_path / "log", "train", *arguments) as started:
        struck: set[int] = set()
        for number in range(num_kills):
            workers = started.new_workers(struck, 2)
            if number % 4 == 3:
                time.sleep(draw.uniform(0, 4))  # while they start
            else:
                goal = last_iteration(run) + draw.randint(1, 6)
                started.wait_for_iteration(run, min(goal, total - 2))
                time.sleep(draw.uniform(0, 0.2))
            kill(draw.choice(workers))
            struck |= set(workers)
        assert started.wait(600) == 0, started.said()
    assert started.said().count("processes failed or were killed") == num_kills
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] == total
    check_every_patch_once(run, NUM_PATCHES, total * 2 * BATCH)


def machine(folder: Path, name: str, port: int, **settings: Any) -> Any:
    together = {
        "nnodes": "1:4",
        "rdzv_endpoint": f"127.0.0.1:{port}",
        "join_wait_seconds": 4,
        "max_restarts": 10,
        "collective_timeout_seconds": 60,
    }
    return launched(folder / f"{name}.log", "train", *flags(folder, **together | settings))


def is_gone(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def num_ranks_now(said: str) -> int:
    found = re.findall(r"global batch \d+ \((?:\d+ passes of )?\d+ x (\d+) ranks", said)
    return int(found[-1]) if found else 0


def wait_for_world(machines: list[Started], num_ranks: int) -> None:
    """Until the newest start of the run that any machine tells of has that many ranks."""
    log = machines[0].log.parent / "run" / "train.log"

    def there() -> bool:
        return log.exists() and num_ranks_now(log.read_text()) == num_ranks

    machines[0].wait_for(there)


def test_a_machine_joins_and_one_vanishes(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run, port = tmp_path / "run", reserve_port()
    settings = {"total_iterations": 100_000, "global_batch_size": 8}
    with machine(tmp_path, "first", port, **settings) as first:
        wait_for_world([first], 1)
        first.wait_for_iteration(run, 1)
        with machine(tmp_path, "second", port, **settings) as second:
            wait_for_world([first], 2)
            first.wait_for_iteration(run, 7)
            second.kill()
        wait_for_world([first], 1)
        first.process.send_signal(signal.SIGTERM)
        assert first.wait() == 143, first.said()
    log = (run / "train.log").read_text()
    assert log.count("global batch 8 (2 passes of 4 x 1 ranks)") == 2
    assert log.count("global batch 8 (4 x 2 ranks)") == 1
    assert "Start 2: machines join" in first.said()
    assert "Start 3: processes failed or were killed" in first.said()
    joined_at = re.findall(r"Resumed .* at iteration (\d+)", log)[0]
    assert f"checkpoint_iter_{int(joined_at):08d}" in log  # saved for the one that joined
    iteration = read_checkpoint(run / "checkpoint.pth")["iteration"]
    check_every_patch_once(run, NUM_PATCHES, iteration * 8)


@pytest.mark.thorough
def test_a_launcher_alone_is_killed_and_later_the_host_of_the_rendezvous(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run, port = tmp_path / "run", reserve_port()
    settings = {"total_iterations": 100_000}
    with machine(tmp_path, "first", port, **settings) as first:
        wait_for_world([first], 1)
        with machine(tmp_path, "second", port, **settings) as second:
            wait_for_world([first], 2)
            (orphan,) = second.workers()
            kill(second.process.pid)
            first.wait_for(lambda: is_gone(orphan))
            wait_for_world([first], 1)
        with machine(tmp_path, "third", port, **settings) as third:
            wait_for_world([third], 2)
            third.wait_for_iteration(run, last_iteration(run) + 2)
            seen = last_iteration(run)
            first.kill()
            assert third.wait() == 1, third.said()
    assert "the launcher is gone" in second.said()
    assert "the machines of the run could not meet, or lost each other" in third.said()
    assert read_checkpoint(run / "checkpoint.pth")["iteration"] >= seen - SAVE_FREQ


def test_torchrun_replaces_a_killed_process_and_passes_a_signal_on(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run, script = tmp_path / "run", DOCS / "examples" / "torchrun.sh"
    arguments = flags(tmp_path, total_iterations=100_000)
    endpoint = f"127.0.0.1:{reserve_port()}"
    with running(tmp_path / "log", "bash", script, endpoint, "1", "2", *arguments) as started:
        struck = started.new_workers(set(), 2)
        started.wait_for_iteration(run, 4)
        kill(struck[1])
        started.new_workers(set(struck), 2)
        started.wait_for(lambda: "Resumed" in started.said())
        seen = last_iteration(run)
        started.wait_for_iteration(run, seen + 2)
        started.process.send_signal(signal.SIGUSR1)
        assert started.wait() == 1, started.said()  # torchrun's own code
    assert "SIGUSR1: stopped after iteration" in started.said()
    iteration = read_checkpoint(run / "checkpoint.pth")["iteration"]
    assert iteration > seen
    check_every_patch_once(run, NUM_PATCHES, iteration * 2 * BATCH)


@pytest.mark.thorough
@pytest.mark.timeout(1500)
def test_four_machines_then_two_then_three(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run, port = tmp_path / "run", reserve_port()
    settings = {"total_iterations": 100_000, "global_batch_size": 12, "nnodes": "2:4"}
    with ExitStack() as stack:
        machines = []
        for number in range(4):
            machines.append(stack.enter_context(machine(tmp_path, str(number), port, **settings)))
            machines[0].wait_for_rendezvous(port)
        wait_for_world(machines, 4)
        machines[0].wait_for_iteration(run, 7)
        for vanishing in machines[2:]:
            vanishing.kill()
        wait_for_world(machines, 2)
        seen = last_iteration(run)
        machines[0].wait_for_iteration(run, seen + 4 + 1)
        machines[2] = stack.enter_context(machine(tmp_path, "again", port, **settings))
        wait_for_world(machines, 3)
        seen = last_iteration(run)
        machines[0].wait_for_iteration(run, seen + 4 + 1)
        machines[1].process.send_signal(signal.SIGTERM)  # any one speaks for all
        codes = [machines[number].wait() for number in range(3)]
    assert codes == [143, 143, 143]
    iteration = read_checkpoint(run / "checkpoint.pth")["iteration"]
    check_every_patch_once(run, NUM_PATCHES, iteration * 12)


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_rank_that_hangs_is_named_and_replaced(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    arguments = flags(
        tmp_path, nproc_per_node=2, total_iterations=100_000, collective_timeout_seconds=30
    )
    with launched(tmp_path / "log", "train", *arguments) as started:
        started.wait_for_iteration(run, 3)
        hung = started.workers()[1]
        kill(hung, signal.SIGSTOP)
        started.wait_for(lambda: "It waits for" in started.said())
        started.wait_for(lambda: hung not in started.workers())
        seen = last_iteration(run)
        started.wait_for_iteration(run, seen + 1)
        started.process.send_signal(signal.SIGTERM)
        assert started.wait() == 143, started.said()
    told = re.search(r"It waits for(.*?)process\s+(\d+)(.*?)heartbeat", started.said(), re.DOTALL)
    assert told, started.said()
    assert int(told[2]) == hung


def can_make_namespaces() -> bool:
    if os.geteuid() or not shutil.which("ip"):
        return False
    made = subprocess.run(["ip", "netns", "add", "adios-try"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", "adios-try"], capture_output=True, check=False)
    return made.returncode == 0


HOSTS = {"hostA": "10.91.0.1", "hostB": "10.91.0.2"}


class TwoHosts:
    """Two network namespaces with a host name each, and one wire between them."""

    def __enter__(self) -> TwoHosts:
        self.__exit__()
        table = "127.0.0.1 localhost\n" + "".join(
            f"{address} {name}\n" for name, address in HOSTS.items()
        )
        for name in HOSTS:
            self._ip("netns", "add", name)
            folder = Path("/etc/netns") / name  # `ip netns exec` lays it over /etc
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text(table)
        one, other = HOSTS
        self._ip(
            "-n", one, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", other
        )
        for name, address in HOSTS.items():
            self._ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                self._ip("-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)

    def cut(self) -> None:
        self._ip("-n", "hostB", "link", "set", "wire", "down")

    def prefix(self, name: str) -> tuple[str, ...]:
        inside = 'hostname "$0"; exec "$@"'
        return ("ip", "netns", "exec", name, "unshare", "-u", "sh", "-c", inside, name)

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.skipif(not can_make_namespaces(), reason="needs root and network namespaces")
def test_a_cut_link_leaves_one_host_training_and_the_other_with_a_message(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    arguments = flags(
        tmp_path,
        nnodes="1:2",
        rdzv_endpoint="hostA:29610",
        join_wait_seconds=5,
        collective_timeout_seconds=15,
        total_iterations=100_000,
    )
    with TwoHosts() as hosts, ExitStack() as stack:
        first, second = (
            stack.enter_context(
                running(tmp_path / name, *hosts.prefix(name), *command("train", *arguments))
            )
            for name in HOSTS
        )
        wait_for_world([first], 2)
        first.wait_for_iteration(run, 4)
        hosts.cut()
        assert second.wait() == 1, second.said()
        wait_for_world([first], 1)
        seen = last_iteration(run)
        first.wait_for_iteration(run, seen + 3 + 1)
        first.process.send_signal(signal.SIGTERM)
        assert first.wait() == 143, first.said()
    assert "the machines of the run could not meet, or lost each other" in second.said()
    iteration = read_checkpoint(run / "checkpoint.pth")["iteration"]
    assert iteration > seen
