"""One run at a time in an output folder: a file that says whose it is and that the owner lives."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from adios_tme.distributed.collectives import from_all_ranks
from adios_tme.distributed.world import was_launched
from adios_tme.errors import (
    AdiosError,
    CheckpointError,
    ConfigError,
    DataError,
    MembershipChangedError,
)
from adios_tme.run_folder.layout import LOCK

SIGN_OF_LIFE_SECONDS = 10.0
#: After that long without a sign of life an owner on another machine counts as dead.
SILENCE_SECONDS = 60.0
#: Two that take over the same stale lock find out in this time who came last.
SETTLE_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """The process that writes to a folder, and the launch that it belongs to."""

    host: str
    pid: int
    began: str
    """When the process was started, in ticks since its machine was; tells reused ids apart."""
    launches: tuple[str, ...]
    """Names of the launchers (or scheduler's jobs) of the run; one in common is the same run."""

    def same_launch(self, other: Owner) -> bool:
        """Whether both belong to one launch, of which only one process writes at a time."""
        return bool(set(self.launches) & set(other.launches))

    def is_gone(self, silent_seconds: float) -> bool:
        """Whether it runs no more, as far as this machine can tell."""
        if self.host == _host():
            return _began(self.pid) != self.began
        return silent_seconds > SILENCE_SECONDS


def owner_of_this_run() -> Owner:
    """This process as an owner; a collective, every rank must call it."""
    pid = os.getppid() if was_launched() else os.getpid()
    names = {f"{_host()}:{pid}:{_began(pid)}"}
    if job := os.environ.get("SLURM_JOB_ID"):
        names.add(f"slurm:{os.environ.get('SLURM_CLUSTER_NAME', '')}:{job}")
    launches = sorted(set().union(*from_all_ranks(names)))
    return Owner(_host(), os.getpid(), _began(os.getpid()) or "", tuple(launches))


class RunLock:
    """Holds ``run.lock`` in a folder while the block runs.

    A lock whose owner is gone, or is of the same launch, is taken over. The file stays after an
    error that a launcher answers with a new start, so that the next process knows the launch.

    Args:
        folder: Output folder; made if it is not there.
        owner: Who takes it.
        flag: The flag that names the folder, for messages.
    """

    def __init__(self, folder: Path, owner: Owner, flag: str = "--output-dir") -> None:
        self.path = folder / LOCK
        self.owner = owner
        self._flag = flag
        self.is_new_launch = True
        self._made_folder = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show_life, name="lock", daemon=True)

    def __enter__(self) -> Self:
        """Take the folder.

        Raises:
            ConfigError: If another run that may still be alive holds it.
            DataError: If the folder cannot be written.
        """
        try:
            self._made_folder = not self.path.parent.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            raise DataError(
                f"{self.path.parent}: the output folder cannot be written ({error.strerror}). "
                f"Give another {self._flag}, or check permissions and space."
            ) from error
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        begins_again = was_launched() and error is not None and not _is_final(error)
        if not begins_again and _read(self.path) == self.owner:
            self.path.unlink(missing_ok=True)
            if self._made_folder and error is not None:
                with contextlib.suppress(OSError):  # an error before anything was written
                    self.path.parent.rmdir()

    def check(self) -> None:
        """Make sure that the folder is still ours.

        Raises:
            CheckpointError: If another run has taken it over meanwhile.
        """
        found = _read(self.path)
        if found != self.owner:
            who = f"process {found.pid} on {found.host}" if found else "somebody"
            raise CheckpointError(
                f"{self.path}: {who} has taken the folder over, so this run no longer writes to "
                f"it. Give each run its own {self._flag}."
            )

    def _take(self) -> None:
        own = self.path.with_name(f".{LOCK}.{socket.gethostname()}.{self.owner.pid}")
        own.write_text(json.dumps(asdict(self.owner)) + "\n", encoding="utf-8")
        try:
            if _is_first_to_create(self.path, own):
                return
            self._judge(silent_seconds=own.stat().st_mtime - self.path.stat().st_mtime)
            own.replace(self.path)
        finally:
            own.unlink(missing_ok=True)
        time.sleep(SETTLE_SECONDS)
        if (found := _read(self.path)) != self.owner:
            raise self._refusal(found, 0)

    def _judge(self, silent_seconds: float) -> None:
        """Let a lock be taken over that is stale or of the same launch; both ages by one clock."""
        found = _read(self.path)
        if found is not None and found.same_launch(self.owner):
            self.is_new_launch = False
        elif found.is_gone(silent_seconds) if found else silent_seconds > SILENCE_SECONDS:
            gone = f"process {found.pid} on {found.host} is gone" if found else "it names nobody"
            logger.warning("%s was left behind (%s); taking the folder over.", self.path, gone)
        else:
            raise self._refusal(found, silent_seconds)

    def _refusal(self, found: Owner | None, silent_seconds: float) -> ConfigError:
        who = f"process {found.pid} on {found.host}" if found else "another process"
        return ConfigError(
            f"{self.path.parent}: is in use by {who} (last sign of life "
            f"{max(0, silent_seconds):.0f} s ago). Give another {self._flag}, stop that run, or, "
            f"if it is surely dead, remove {self.path}."
        )

    def _show_life(self) -> None:
        while not self._ended.wait(SIGN_OF_LIFE_SECONDS):
            # A disk that is full or away is the checkpoints' business to tell.
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _is_final(error: BaseException) -> bool:
    """Whether a launcher ends the run at this error instead of starting workers again."""
    return isinstance(error, AdiosError) and not isinstance(error, MembershipChangedError)


def _is_first_to_create(path: Path, content: Path) -> bool:
    """Give a file its name; of several that try, one succeeds, on network file systems too."""
    try:
        os.link(content, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(content.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _read(path: Path) -> Owner | None:
    """Who holds a lock; None where the file is gone or says nothing."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Owner(**fields | {"launches": tuple(fields["launches"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _host() -> str:
    """Name of this machine and, within it, of the space in which process ids count."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{space.readlink()}" if space.exists() else socket.gethostname()


def _began(pid: int) -> str | None:
    """When a process of this machine was started; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return "" if _is_alive_without_proc(pid) else None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]


def _is_alive_without_proc(pid: int) -> bool:
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, and somebody else's
    return True
