"""Requests to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adios_tme.distributed.stop import ECHO_SECONDS, STOPPING, StopListener, stop_on_signal
from adios_tme.distributed.worker_channel import Request, WorkerChannel
from adios_tme.errors import DataError, TrainingStoppedError


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


DEAF = """
import os, signal, time
from adios_tme.distributed.stop import stop_on_signal
with stop_on_signal():
    # the main thread sits in a call that no handler interrupts
    print("ready", flush=True)
    r, w = os.pipe()
    import ctypes
    buffer = ctypes.create_string_buffer(1)
    while True:
        ctypes.CDLL(None).read(r, buffer, 1)
        ctypes.CDLL(None).sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_at_once_whatever_the_loop_does(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    time.sleep(ECHO_SECONDS + 0.5)
    assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"leaves at once: a second signal, {number.name}" in said


ORPHAN = """
import os, subprocess, sys, time
from multiprocessing import get_context
from adios_tme.distributed.worker_channel import WorkerChannel
from adios_tme.distributed.stop import stop_on_signal
def work(channel, path):
    os.environ.update(RANK="0", WORLD_SIZE="1")
    with stop_on_signal(channel):
        open(path, "w").write(str(os.getpid()))
        time.sleep(600)
if __name__ == "__main__":
    channel = WorkerChannel(1)
    get_context("spawn").Process(target=work, args=(channel, sys.argv[1])).start()
    time.sleep(600)
"""


def test_a_worker_whose_launcher_is_killed_leaves(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("orphan")
    script, note = folder / "launcher.py", folder / "pid"
    script.write_text(ORPHAN)
    launcher = subprocess.Popen([sys.executable, str(script), str(note)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not note.exists() or not note.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = int(note.read_text())
    launcher.kill()
    _, said = launcher.communicate(timeout=60)  # ends with the last that writes: the worker
    assert b"leaves at once: the launcher is gone" in said
    state = Path(f"/proc/{worker}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


TRACKED = """
import os, signal, time
from multiprocessing import resource_tracker
from adios_tme.launch.local import start_resource_tracker
start_resource_tracker()
tracker = resource_tracker._resource_tracker
for number in (signal.SIGUSR1, signal.SIGUSR2):
    os.kill(tracker._pid, number)
    time.sleep(0.5)
    assert tracker._check_alive()
    assert os.waitpid(tracker._pid, os.WNOHANG) == (0, 0)
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
"""


def test_the_tracker_of_resources_outlives_the_signals_of_a_scheduler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACKED], capture_output=True, text=True, check=False
    )
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
