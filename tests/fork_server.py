"""Processes that are forked from one in which torch is loaded, instead of loading it anew.

The server imports and starts nothing else: it has one thread, and no state but modules. A process
that it forks is as the command would be after its imports, with a working directory, environment,
output and arguments of its own. It ends as the interpreter does, but for taking all modules apart.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import os
import pickle
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
#: The installed command.
SCRIPT = Path(sys.executable).with_name("adios-tme")
LOADED = (
    "adios_tme.benchmark.nuclei.run",
    "adios_tme.cli.app",
    "adios_tme.launch.local",
    "adios_tme.training.loop",
    "adios_tme.viz.masks",
    "torch._dynamo",  # by the first optimizer
)
SERVE = "import sys; from tests.fork_server import serve; serve(int(sys.argv[1]))"


@dataclass(frozen=True)
class Order:
    """A process to fork."""

    call: bytes
    """What it calls and with what, pickled; the server itself does not open it."""
    folder: str
    environment: dict[str, str]
    out: str
    err: str | None
    """File for errors; absent: that of the output."""


class Forked:
    """A process of the fork server, used as a `subprocess.Popen` is."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self._server = server

    def poll(self) -> int | None:
        """Exit code, negative for a signal that killed it; None while it runs."""
        self._server.hear(0)
        return self._server.exit_codes.get(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: If it still runs after that many seconds.
        """
        (code,) = wait_for_all([self], timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with -9, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def wait_for_all(processes: Sequence[Forked], timeout: float | None = None) -> list[int]:
    """Exit codes of all, once all have ended or one has failed, whose fellows are then killed.

    Raises:
        subprocess.TimeoutExpired: If some still run after that many seconds.
    """
    ends_at = None if timeout is None else time.monotonic() + timeout
    while None in (codes := [process.poll() for process in processes]):
        if any(codes):
            for process in processes:
                process.kill()
        left = None if ends_at is None else ends_at - time.monotonic()
        if left is not None and left <= 0:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        processes[0]._server.hear(left)
    return [code for code in codes if code is not None]


class ForkServer:
    """The server as the tests see it; one for each process that runs tests."""

    def __init__(self) -> None:
        self.exit_codes: dict[int, int] = {}
        self._connection, theirs = Pipe()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            )

    def start(self, order: Order) -> Forked:
        """Fork a process."""
        self._connection.send(order)
        while "started" not in (told := self._connection.recv()):
            self._note(told)
        self.exit_codes.pop(told["started"], None)
        return Forked(self, told["started"])

    def hear(self, timeout: float | None) -> None:
        """Note who has ended, waiting for the next to end where none has."""
        while self._connection.poll(timeout):
            self._note(self._connection.recv())
            timeout = 0

    def close(self) -> None:
        """End the server, and with it all that it has forked."""
        self._connection.close()
        self._process.wait()

    def _note(self, told: dict[str, int]) -> None:
        self.exit_codes[told["ended"]] = told["code"]


@functools.cache
def server() -> ForkServer:
    """The server of this process, started when it is first needed."""
    started = ForkServer()
    atexit.register(started.close)
    return started


def fork(
    function: Callable[..., object],
    *arguments: Any,
    environment: Mapping[str, str],
    out: Path,
    err: Path | None = None,
) -> Forked:
    """Call a function of a module in a process forked for it, in this working directory.

    Args:
        function: What to call.
        arguments: With what.
        environment: All of the process's environment.
        out: File for what it says.
        err: File for what it says on standard error; absent: the same.
    """
    out.touch()  # so that it can be read at once
    call = pickle.dumps((function, arguments))
    files = (str(out.absolute()), str(err.absolute()) if err else None)
    return server().start(Order(call, str(Path.cwd()), dict(environment), *files))


def run_forked(
    function: Callable[..., object],
    *arguments: Any,
    timeout: float = 240,
    environment: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[str]:
    """Call a function of a module in a process forked for it, and capture what it says.

    Raises:
        subprocess.TimeoutExpired: If it still runs after that many seconds; it is then killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = fork(function, *arguments, environment=environment, out=out, err=err)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def run_script(*words: str) -> None:
    """Be the installed command with arguments."""
    sys.argv = [str(SCRIPT), *words]
    sys.path[0] = str(SCRIPT.parent)
    runpy.run_path(str(SCRIPT), run_name="__main__")


def serve(descriptor: int) -> None:
    """Fork a process for every order, and tell who has ended."""
    _load()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; meant for the processes alone
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writing)
    running: set[int] = set()
    connection = Connection(descriptor)
    while True:
        ready = wait([connection, reading])
        if reading in ready:
            os.read(reading, 4096)
            _tell_who_ended(connection, running)
        if connection in ready:
            order = _next_order(connection)
            if order is None:
                break
            if (pid := os.fork()) == 0:
                os.close(reading)
                os.close(writing)
                connection.close()
                _end(_become(order))
            running.add(pid)
            connection.send({"started": pid})
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _load() -> None:
    """Import what commands and ranks do, be it at their first step."""
    for name in LOADED:
        importlib.import_module(name)

    gc.freeze()  # else each process copies these objects when it first looks for cycles


def _tell_who_ended(connection: Connection, running: set[int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        running.discard(pid)
        connection.send({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _next_order(connection: Connection) -> Order | None:
    try:
        order: Order = connection.recv()
    except EOFError:  # the tests are over
        return None
    return order


def _become(order: Order) -> int:
    """Make the forked process that of an order, and call what it says; the exit code."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    _write_to(order.out, 1)
    if order.err is None:
        os.dup2(1, 2)
    else:
        _write_to(order.err, 2)
    try:
        function, arguments = pickle.loads(order.call)
        function(*arguments)
    except SystemExit as left:
        return _exit_code(left)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _exit_code(left: SystemExit) -> int:
    if left.code is None or isinstance(left.code, int):
        return left.code or 0
    sys.stderr.write(f"{left.code}\n")
    return 1


def _end(code: int) -> NoReturn:
    """What the interpreter does at its end: threads, functions for the exit, streams.

    It would also take all modules apart, which copies each page that the fork shares: longer than
    a small training run.
    """
    vars(threading)["_shutdown"]()  # ends the threads of executors, too, which a join waits for
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _write_to(path: str, descriptor: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(file, descriptor)
    os.close(file)
