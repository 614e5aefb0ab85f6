"""What may be launched: each job as its processes do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adios_tme.benchmark.nuclei.during_training import evaluator
from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.config.launch import LaunchConfig
from adios_tme.config.model import is_timm
from adios_tme.config.train import TrainConfig
from adios_tme.data.sources import check_data_path
from adios_tme.distributed.worker_channel import WorkerChannel
from adios_tme.distributed.world import World
from adios_tme.inference.embed.run import run_embedding
from adios_tme.launch.memory import check_memory
from adios_tme.training.loop import run_training
from adios_tme.training.state import check_timm


class Job(Protocol):
    """What the processes of a launch do together; it is pickled to them."""

    @property
    def launch(self) -> LaunchConfig:
        """Processes and rendezvous."""

    @property
    def device(self) -> str:
        """Where they compute: auto, cuda or cpu."""

    @property
    def advice(self) -> str:
        """Where to look when they fail again and again."""

    def run(self, channel: WorkerChannel | None = None) -> Path:
        """One process's part; what it returns is the same on all of them."""


def admit(config: TrainConfig, world: World) -> None:
    """Refuse a run that cannot begin, the plainest reason first.

    Raises:
        ConfigError: If there is nothing to train on, the encoder cannot be built, or a step does
            not fit into the memory.
    """
    for root in config.data.roots:
        check_data_path(root.path, slides=config.data.slides.mpp is not None)
    if is_timm(config.model.arch):
        check_timm(config, world)  # its memory is not known on paper
    else:
        check_memory(config, world)


@dataclass(frozen=True)
class Training:
    """Training, as a job."""

    config: TrainConfig

    @property
    def launch(self) -> LaunchConfig:
        """Processes and rendezvous."""
        return self.config.launch

    @property
    def device(self) -> str:
        """Where they compute."""
        return self.config.compute.device

    @property
    def advice(self) -> str:
        """Where the log is."""
        return f"See {self.config.run.output_dir / 'train.log'} and the output above."

    def run(self, channel: WorkerChannel | None = None) -> Path:
        """Train; see `adios_tme.training.loop.run_training`."""
        evaluate = evaluator(self.config.watch)
        return run_training(self.config, channel=channel, evaluate=evaluate, admit=admit)


@dataclass(frozen=True)
class Embedding:
    """Embedding a data set, as a job."""

    config: EmbedConfig

    @property
    def launch(self) -> LaunchConfig:
        """Processes and rendezvous."""
        return self.config.launch

    @property
    def device(self) -> str:
        """Where they compute."""
        return self.config.features.device

    @property
    def advice(self) -> str:
        """There is no log but the terminal."""
        return "See the output above."

    def run(self, channel: WorkerChannel | None = None) -> Path:
        """Embed; see `adios_tme.inference.embed.run.run_embedding`."""
        return run_embedding(self.config, channel=channel)
