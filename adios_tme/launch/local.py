"""Start a job on this machine: in this process, or in workers of torch's elastic agent."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig as ElasticConfig
from torch.distributed.launcher.api import elastic_launch

from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.config.launch import LaunchConfig
from adios_tme.config.train import TrainConfig
from adios_tme.distributed.stop import ECHO_SECONDS, STOPPING, handling, signals_blocked
from adios_tme.distributed.worker_channel import Request, WorkerChannel
from adios_tme.distributed.world import was_launched
from adios_tme.errors import (
    AdiosError,
    ConfigError,
    LaunchError,
    MembershipChangedError,
    TrainingStoppedError,
)
from adios_tme.launch.jobs import Embedding, Job, Training
from adios_tme.launch.rendezvous import SAVE_SECONDS, register
from adios_tme.run_folder.log import terminal_log

#: Time that workers have to leave before they are killed.
SHUTDOWN_SECONDS = 10

logger = logging.getLogger(__name__)


def train(config: TrainConfig, rendezvous: dict[str, Any] | None = None) -> Path:
    """Train as the settings say, and return the last checkpoint.

    Args:
        config: Settings of the run.
        rendezvous: What a scheduler knows of the rendezvous, as torch names it.

    Raises:
        AdiosError: See `adios_tme.training.loop.run_training`; ``exit_code`` tells which.

    Example:
        >>> from adios_tme import TrainConfig, train
        >>> config = TrainConfig(data_path=[patches], output_dir="new_run", **tiny)
        >>> train(config).name
        'checkpoint.pth'
    """
    return start(Training(config), rendezvous)


def embed(config: EmbedConfig) -> Path:
    """Write the features of a data set as the settings say, and return their folder.

    Raises:
        AdiosError: See `adios_tme.inference.embed.run.run_embedding`.
    """
    return start(Embedding(config))


def start(job: Job, rendezvous: dict[str, Any] | None = None) -> Path:
    """Do a job here, or in processes that are started for it.

    One process works right here, so that a debugger works; several are started and watched by
    torch's elastic agent. Under torchrun this process joins the group it was started for.

    Args:
        job: What to do.
        rendezvous: See `train`.

    Raises:
        AdiosError: What ended it; ``exit_code`` tells which.
    """
    num_processes = processes_on_this_node(job)
    if was_launched() or (num_processes == 1 and job.launch.nnodes == "1"):
        return job.run()
    return Launch(job, num_processes, rendezvous or {}).run()


def processes_on_this_node(job: Job) -> int:
    """Processes to start here: as asked, or one per GPU."""
    asked = job.launch.nproc_per_node
    if asked != "auto":
        return int(asked)
    on_gpus = job.device != "cpu" and torch.cuda.is_available()
    return torch.cuda.device_count() if on_gpus else 1


class Launch:
    """The workers of this machine, and what they are asked.

    Workers look at the request after every step. Passing signals on to them would end those that
    have only begun, and the agent would start them again.

    Args:
        job: What they do.
        num_processes: Workers on this machine.
        rendezvous: See `train`.
    """

    def __init__(
        self, job: Job, num_processes: int, rendezvous: dict[str, Any] | None = None
    ) -> None:
        self.job = job
        start_resource_tracker()
        self.channel = WorkerChannel(num_processes)
        self._elastic = _elastic_config(job.launch, num_processes, rendezvous or {})
        self._elastic.rdzv_backend = register(self.channel)
        self._asked_at = 0.0

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Ask the workers to save and leave; a second time, to leave at once."""
        if self.channel.request.signal is None:
            self._asked_at = time.monotonic()
            self.channel.request = Request.of_signal(number)
        elif time.monotonic() - self._asked_at > ECHO_SECONDS:
            self.channel.at_once = True
            raise SignalException("asked twice", signal.Signals(number))

    def wait_until_saved(self, seconds: float) -> bool:
        """Wait for the workers to end, from within a signal handler; whether they did."""
        deadline = time.monotonic() + seconds
        while not self.channel.all_ended and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.channel.all_ended

    def run(self, signals: tuple[signal.Signals, ...] = STOPPING) -> Path:
        """Wait for the end, and return what the workers return.

        Args:
            signals: Those to answer; a scheduler's own handler may see to the others.

        Raises:
            AdiosError: What ended the run before.
        """
        try:
            with handling(self.ask, signals), terminal_log():
                workers = elastic_launch(self._elastic, _worker)
                results = workers(self.job, self.channel)
        except ChildFailedError as error:
            if known := self.channel.error:
                raise known from error
            if number := self.channel.request.signal:
                raise _stopped_at_once(number) from error
            raise LaunchError(
                f"The processes failed {self.job.launch.max_restarts + 1} times. "
                f"{self.job.advice}\n{error}"
            ) from error
        except SignalException as error:
            raise _stopped_at_once(error.sigval) from error
        except RendezvousError as error:
            if known := self.channel.error:  # the run has ended, and the rendezvous first
                raise known from error
            raise LaunchError(
                f"{self._elastic.rdzv_endpoint}: the machines of the run could not meet, or lost "
                f"each other ({type(error).__name__}). Check that the address is reachable from "
                f"all of them, then run the same command again to go on from what is saved."
            ) from error
        except OSError as error:  # as when the locks of the processes find no room
            raise LaunchError(
                f"{self._elastic.nproc_per_node} processes cannot be started "
                f"({error.strerror}). Make room in /dev/shm and {tempfile.gettempdir()}, or use "
                f"--nproc-per-node 1."
            ) from error
        if known := self.channel.error:
            raise known
        return Path(next(iter(results.values())))


def start_resource_tracker() -> None:
    """Start multiprocessing's resource tracker so that a scheduler's signals leave it alone.

    It shields itself from SIGINT and SIGTERM only; a job step's SIGUSR2 would end it, and its
    successor would print a traceback for every resource that it has not heard of.
    """
    with signals_blocked():
        resource_tracker.ensure_running()


def _stopped_at_once(number: int) -> TrainingStoppedError:
    return TrainingStoppedError(
        f"{signal.Signals(number).name}: stopped at once. "
        f"Run the same command again to go on from what is saved.",
        number,
    )


def _elastic_config(
    launch: LaunchConfig, num_processes: int, rendezvous: dict[str, Any]
) -> ElasticConfig:
    least, _, most = launch.nnodes.partition(":")
    alone = launch.nnodes == "1"
    if not alone and launch.rdzv_endpoint is None:
        raise ConfigError(
            f"launch: nnodes={launch.nnodes} needs a rendezvous endpoint. "
            f"Give --rdzv-endpoint HOST:PORT, the same on every machine."
        )
    # Workers share the cores of a machine; without this each would start a thread per core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A worker that was killed leaves keys in the agent's store, on which its successor would trip.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    return ElasticConfig(
        min_nodes=int(least),
        max_nodes=int(most or least),
        nproc_per_node=num_processes,
        run_id=f"adios-tme-{uuid.uuid4().hex[:8]}" if alone else "adios-tme",
        rdzv_endpoint=launch.rdzv_endpoint or "127.0.0.1:0",
        rdzv_configs={"last_call_timeout": launch.join_wait_seconds} | rendezvous,
        max_restarts=launch.max_restarts,
        signals_to_handle="SIGHUP,SIGQUIT",
        shutdown_timeout=SHUTDOWN_SECONDS,
    )


def _worker(job: Job, channel: WorkerChannel) -> str:
    """One process; what it returns reaches the launcher, and so do errors of ours."""
    if number := channel.request.signal:
        channel.tell(_stopped_at_once(number))
        return ""
    try:
        return str(job.run(channel))
    except MembershipChangedError as change:
        channel.is_ready()
        time.sleep(SAVE_SECONDS)  # until the agent stops this process to start another
        sys.exit(str(change))
    except AdiosError as error:
        channel.tell(error)
        return ""
    finally:
        channel.has_ended()
