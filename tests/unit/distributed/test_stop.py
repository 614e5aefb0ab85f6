"""Requests to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from typing import Any

import pytest

from adios_tme.distributed import stop as stopping
from adios_tme.distributed.stop import STOPPING, StopListener, stop_on_signal
from adios_tme.distributed.worker_channel import Request, WorkerChannel
from adios_tme.errors import DataError, TrainingStoppedError
from adios_tme.files import write_whole
from adios_tme.launch.local import start_resource_tracker
from tests.faults.launching import PATIENCE_SECONDS, forked
from tests.fork_server import run_forked


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert stop.agree() == Request.CONTINUE
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # an echo, as from a scheduler that signals everybody
        assert stop.agree() == stop.request
        assert stop.request.signal == number
    assert signal.getsignal(number) is before


def test_the_launcher_asks_and_a_signal_outweighs_a_change() -> None:
    channel = WorkerChannel(1)
    stop = StopListener(channel)
    channel.request = Request.CHANGE_MEMBERSHIP
    assert stop.agree() == Request.CHANGE_MEMBERSHIP
    stop.request = Request.TERMINATE
    assert stop.agree() == Request.TERMINATE
    assert stop.agree(give_up=True) == Request.GIVE_UP


def test_requests_are_no_signal_numbers_and_know_theirs() -> None:
    assert {int(request) for request in Request} & set(signal.valid_signals()) == set()
    for number in STOPPING:
        assert Request.of_signal(number).signal is number
    for request in (Request.CONTINUE, Request.CHANGE_MEMBERSHIP, Request.GIVE_UP):
        assert request.signal is None
    with pytest.raises(ValueError, match="1001"):
        Request.of_signal(signal.SIGHUP)


def be_deaf(echo_seconds: float) -> None:
    """Sit in a call that no handler of Python's interrupts."""
    with pytest.MonkeyPatch.context() as patch, stop_on_signal():
        patch.setattr(stopping, "ECHO_SECONDS", echo_seconds)
        sys.stderr.write("ready\n")
        while True:
            ctypes.CDLL(None).sleep(600)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once_whatever_the_loop_does(
    number: signal.Signals, tmp_path: Path
) -> None:
    echo_seconds = 0.2
    with forked(tmp_path / "log", be_deaf, echo_seconds) as started:
        started.wait_for(lambda: "ready" in started.said())
        started.process.send_signal(number)
        time.sleep(2 * echo_seconds)
        assert started.process.poll() is None
        started.process.send_signal(number)
        assert started.wait() == 128 + number
    assert f"leaves at once: a second signal, {number.name}" in started.said()


def launch_a_worker(note: Path) -> None:
    channel = WorkerChannel(1)
    get_context("fork").Process(target=work, args=(channel, note)).start()
    time.sleep(600)


def work(channel: WorkerChannel, note: Path) -> None:
    os.environ.update(RANK="0", WORLD_SIZE="1")
    with stop_on_signal(channel):
        write_whole(note, str(os.getpid()))
        time.sleep(600)


def test_a_worker_whose_launcher_is_killed_leaves(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with forked(tmp_path / "log", launch_a_worker, note) as launcher:
        launcher.wait_for(note.exists)
    worker = Path(f"/proc/{note.read_text()}/stat")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while worker.exists() and worker.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "leaves at once: the launcher is gone" in launcher.said()


def signal_the_tracker() -> None:
    start_resource_tracker()
    tracker: Any = resource_tracker._resource_tracker
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(tracker._pid, number)
        time.sleep(0.1)
        assert tracker._check_alive()
        assert os.waitpid(tracker._pid, os.WNOHANG) == (0, 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_the_tracker_of_resources_outlives_the_signals_of_a_scheduler() -> None:
    done = run_forked(signal_the_tracker)
    assert done.returncode == 0, done.stderr


def test_what_workers_tell_reaches_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = WorkerChannel(2)
    assert channel.error is None
    for place in "10":
        assert not channel.all_ready
        assert not channel.all_ended
        monkeypatch.setenv("LOCAL_RANK", place)
        channel.is_ready()
        channel.has_ended()
    assert channel.all_ready
    assert channel.all_ended
    channel.request = Request.CHANGE_MEMBERSHIP
    channel.begin_again()
    assert not channel.all_ready
    assert not channel.all_ended
    assert channel.request == Request.CONTINUE
    channel.tell(TrainingStoppedError("stopped", signal.SIGTERM))
    error = channel.error
    assert isinstance(error, TrainingStoppedError)
    assert (str(error), error.exit_code) == ("stopped", 143)
    channel.tell(DataError("long " * 100_000))
    assert str(channel.error).startswith("long long")
