"""A real SLURM on one machine: a controller and two nodes, started and stopped by the tests.

Needs root and the packages munge, slurmctld, slurmd and slurm-client of Debian or Ubuntu.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
SBIN = "/usr/sbin:/sbin"
NODES = ("n1", "n2")
#: States that a job does not leave by itself.
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")


def why_not() -> str:
    """What is missing to start a cluster here; empty if nothing is."""
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    missing = [name for name in DAEMONS if not shutil.which(name, path=path)]
    if os.geteuid():
        return "needs root"
    return f"needs {', '.join(missing)}" if missing else ""


class Cluster:
    """Two nodes with four counted cores each, all on this machine.

    Args:
        folder: An empty folder with a short path, for sockets.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = random.randrange(21_000, 28_000)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:{SBIN}",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def __enter__(self) -> Cluster:
        try:
            self._start_daemons()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_daemons(self) -> None:
        for name in ("state", "log", "spool/n1", "spool/n2"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(random.randbytes(128))
        key.chmod(0o400)
        (self.folder / "slurm.conf").write_text(self._settings())
        # Named, so that slurmd does not look for control groups that a container may not have.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self._let_node_names_resolve()
        self._start(
            "munged",
            "--foreground",
            f"--key-file={key}",
            f"--socket={self._socket}",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={self.folder}/munge.seed",
        )
        wait_until(lambda: self._succeeds("munge", "-S", str(self._socket), "-n"), "munged")
        self._start("slurmctld", "-D")
        wait_until(lambda: "is UP" in self.run("scontrol", "ping", check=False), "slurmctld")
        for node in NODES:
            self.start_node(node)

    def __exit__(self, *_: object) -> None:
        # Jobs that requeue themselves on the way out must find no node to start on.
        self.run("scontrol", "update", "partitionname=main", "state=down", check=False)
        for job in self.run("squeue", "-h", "-o", "%A", check=False).split():
            self.run("scancel", "--signal=KILL", "--full", job, check=False)
            self.run("scancel", job, check=False)
        for name in reversed(self._daemons):
            self._daemons[name].terminate()
            try:
                self._daemons[name].wait(20)
            except subprocess.TimeoutExpired:
                self._daemons[name].kill()
                self._daemons[name].wait()
        for pid in self._processes_of_jobs():
            _kill(pid)

    def run(self, *words: str | Path, check: bool = True, cwd: Path | None = None) -> str:
        """Run a command of SLURM's, or one that submits, and return what it prints."""
        found = subprocess.run(
            list(map(str, words)),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=cwd,
        )
        assert not check or found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    def state(self, job: str) -> str:
        """State of a job, and how often it has been started again, as in ``RUNNING 1``."""
        fields = dict(
            word.split("=", 1)
            for word in self.run("scontrol", "show", "job", job).split()
            if "=" in word
        )
        return f"{fields['JobState']} {fields['Restarts']}"

    def wait_for(self, job: str, state: str, seconds: float) -> None:
        def is_there() -> bool:
            found = self.state(job)
            assert found.startswith(state) or not found.startswith(ENDED), f"job {job}: {found}"
            return found.startswith(state)

        wait_until(is_there, f"job {job} {state}", seconds)

    def start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, name=node)
        up = ("idle", "mix", "alloc")
        wait_until(
            lambda: self.run("sinfo", "-h", "-n", node, "-o", "%t", check=False).strip() in up, node
        )

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and all that runs on it with -9."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for pid in self._processes_of_jobs(node):
            _kill(pid)

    def _processes_of_jobs(self, node: str = "") -> list[int]:
        """Processes of this cluster's jobs, the daemons' own steps among them."""
        own = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
        log = str(self.folder / "log" / f"slurmd.{node}")
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "environ").read_bytes().split(b"\0")
                name = (process / "comm").read_text().strip()
                open_files = [str(file.readlink()) for file in (process / "fd").iterdir()]
            except OSError:
                continue
            in_job = own in words and any(word.startswith(b"SLURM_JOB_ID=") for word in words)
            on_node = not node or f"SLURMD_NODENAME={node}".encode() in words
            is_step = name == "slurmstepd" and any(log in file for file in open_files)
            if (in_job and on_node) or is_step:
                found.append(int(process.name))
        return found

    def _start(self, program: str, *words: str, name: str = "") -> None:
        with (self.folder / "log" / f"{name or program}.out").open("ab") as log:
            self._daemons[name or program] = subprocess.Popen(
                [shutil.which(program, path=self._environment["PATH"]) or program, *words],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _succeeds(self, *words: str) -> bool:
        found = subprocess.run(words, env=self._environment, capture_output=True, check=False)
        return found.returncode == 0

    @property
    def _socket(self) -> Path:
        return self.folder / "munge.socket"

    def _settings(self) -> str:
        host = socket.gethostname().split(".")[0]
        lines = [
            "ClusterName=adios",
            f"SlurmctldHost={host}(127.0.0.1)",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            # The expiry is also how long a requeued job waits before it starts again.
            f"AuthInfo=socket={self._socket},cred_expire=5",
            f"SlurmctldPort={self._port}",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={self.folder}/log/slurmctld.log",
            f"SlurmdLogFile={self.folder}/log/slurmd.%n.log",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SwitchType=switch/none",
            "MpiDefault=none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory",
            "DefMemPerCPU=256",
            "SlurmdParameters=config_overrides",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0",
            "JobRequeue=1",
            "MinJobAge=86400",  # a job that ended is remembered, however long the others take
            "ReturnToService=2",
            "SlurmdTimeout=15",
            "KillWait=10",
            f"FirstJobId={random.randrange(1_000, 900_000)}",
            "PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverTimeLimit=0",
        ]
        for place, node in enumerate(NODES, start=1):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 "
                f"Port={self._port + place} CPUs=4 RealMemory=4096"
            )
        return "\n".join(lines) + "\n"

    def _let_node_names_resolve(self) -> None:
        hosts = Path("/etc/hosts")
        line = f"127.0.0.1 {' '.join(NODES)}"
        if line not in hosts.read_text():
            with hosts.open("a") as file:
                file.write(line + "\n")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.3)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
