"""Start a run on this machine: in this process, or in workers of torch's elastic agent."""

from __future__ import annotations

import os
import signal
import uuid
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig as ElasticConfig
from torch.distributed.launcher.api import elastic_launch

from adios_tme.benchmark.watch import evaluator
from adios_tme.config.train import TrainConfig
from adios_tme.distributed import was_launched
from adios_tme.errors import AdiosError, ConfigError, LaunchError, TrainingStoppedError
from adios_tme.training.loop import run_training
from adios_tme.training.signals import SharedNumber, handling
from adios_tme.training.start import claim

#: Time that workers have to leave before they are killed.
SHUTDOWN_SECONDS = 30


def train(config: TrainConfig) -> Path:
    """Train as the settings say, and return the last checkpoint.

    One process trains right here, so that a debugger works; several are started and watched by
    torch's elastic agent. Under torchrun this process joins the group it was started for.

    Raises:
        AdiosError: See `adios_tme.training.loop.run_training`; ``exit_code`` tells which.
    """
    num_processes = processes_on_this_node(config)
    if was_launched() or (num_processes == 1 and config.launch.nnodes == "1"):
        return run_training(config, evaluate=evaluator(config))
    return _train_in_workers(config, num_processes)


def processes_on_this_node(config: TrainConfig) -> int:
    """Training processes to start here: as asked, or one per GPU."""
    asked = config.launch.nproc_per_node
    if asked != "auto":
        return int(asked)
    on_gpus = config.compute.device != "cpu" and torch.cuda.is_available()
    return torch.cuda.device_count() if on_gpus else 1


@dataclass(frozen=True)
class _KnownError:
    """An error that a restart would only meet again, carried from a worker to the launcher."""

    message: str
    exit_code: int


def _train_in_workers(config: TrainConfig, num_processes: int) -> Path:
    claim(config)
    workers = elastic_launch(_elastic_config(config, num_processes), _worker)
    # Workers look at this number after every step. Passing signals on to them would end those that
    # have only begun, and the agent would start them again.
    asked = get_context("spawn").Value("i", 0, lock=False)

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.value:
            raise SignalException("asked twice", signal.Signals(number))
        asked.value = number

    try:
        with handling(ask):
            results = workers(config, asked)
    except ChildFailedError as error:
        if asked.value:
            raise _stopped(asked.value) from error
        raise LaunchError(
            f"Training processes failed {config.launch.max_restarts + 1} times. "
            f"See {config.run.output_dir / 'train.log'} and the output above.\n{error}"
        ) from error
    except SignalException as error:
        raise _stopped(error.sigval) from error
    for result in results.values():
        if isinstance(result, _KnownError):
            raise _as_exception(result)
    return Path(next(iter(results.values())))


def _stopped(number: int) -> TrainingStoppedError:
    return TrainingStoppedError(
        f"{signal.Signals(number).name}: stopped at once. "
        f"Run the same command again to go on from the last checkpoint.",
        number,
    )


def _elastic_config(config: TrainConfig, num_processes: int) -> ElasticConfig:
    least, _, most = config.launch.nnodes.partition(":")
    if config.launch.nnodes != "1" and config.launch.rdzv_endpoint is None:
        raise ConfigError(
            f"launch: nnodes={config.launch.nnodes} needs a meeting place. "
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
        run_id=f"adios-tme-{uuid.uuid4().hex[:8]}" if most == "" and least == "1" else "adios-tme",
        rdzv_backend="c10d",
        rdzv_endpoint=config.launch.rdzv_endpoint or "127.0.0.1:0",
        max_restarts=config.launch.max_restarts,
        signals_to_handle="SIGHUP,SIGQUIT",
        shutdown_timeout=SHUTDOWN_SECONDS,
    )


def _worker(config: TrainConfig, asked: SharedNumber) -> str | _KnownError:
    """One training process; what it returns reaches the launcher."""
    if asked.value:
        stopped = _stopped(asked.value)
        return _KnownError(str(stopped), stopped.exit_code)
    try:
        return str(run_training(config, prepare=False, launcher=asked, evaluate=evaluator(config)))
    except AdiosError as error:
        return _KnownError(str(error), error.exit_code)


def _as_exception(known: _KnownError) -> AdiosError:
    error = AdiosError(known.message)
    error.exit_code = known.exit_code
    return error
