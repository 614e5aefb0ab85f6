"""What may be launched: each job as its processes do it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.config.launch import ClusterConfig, LaunchConfig
from adios_tme.config.load import with_whole_paths
from adios_tme.config.model import is_timm
from adios_tme.config.train import TrainConfig
from adios_tme.data.sources import check_data_path
from adios_tme.distributed.worker_channel import WorkerChannel
from adios_tme.distributed.world import World
from adios_tme.inference.embed.run import run_embedding
from adios_tme.launch.memory import check_memory
from adios_tme.training.evaluation import Evaluate
from adios_tme.training.loop import run_training
from adios_tme.training.start import check_timm

SomeConfig = TypeVar("SomeConfig", TrainConfig, EmbedConfig)


class Job(Protocol):
    """What the processes of a launch do together; it is pickled to them."""

    @property
    def launch(self) -> LaunchConfig:
        """Processes and rendezvous."""

    @property
    def cluster(self) -> ClusterConfig:
        """What is asked of SLURM."""

    @property
    def device(self) -> str:
        """Where they compute: auto, cuda or cpu."""

    @property
    def num_workers(self) -> int:
        """Processes that read data, beside each of them."""

    @property
    def output_dir(self) -> Path:
        """Folder that all of it goes to."""

    @property
    def advice(self) -> str:
        """Where to look when they fail again and again."""

    def launched_as(self, launch: LaunchConfig) -> Self:
        """The same job with other processes or another rendezvous."""

    def with_whole_paths(self) -> Self:
        """The same job for a process that works in another folder."""

    def run(self, channel: WorkerChannel | None = None) -> Path:
        """One process's part; what it returns is the same on all of them."""


@dataclass(frozen=True)
class _Configured(Generic[SomeConfig]):
    """What jobs have from their settings alike."""

    config: SomeConfig

    @property
    def launch(self) -> LaunchConfig:
        """Processes and rendezvous."""
        return self.config.launch

    @property
    def cluster(self) -> ClusterConfig:
        """What is asked of SLURM."""
        return self.config.cluster

    def launched_as(self, launch: LaunchConfig) -> Self:
        """The same job with other processes or another rendezvous."""
        return replace(self, config=self.config.model_copy(update={"launch": launch}))

    def with_whole_paths(self) -> Self:
        """The same job for a process that works in another folder."""
        return replace(self, config=with_whole_paths(self.config))


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
class Training(_Configured[TrainConfig]):
    """Training, as a job."""

    @property
    def device(self) -> str:
        """Where they compute."""
        return self.config.compute.device

    @property
    def num_workers(self) -> int:
        """Processes that read data."""
        return self.config.data.num_workers

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return self.config.run.output_dir

    @property
    def advice(self) -> str:
        """Where the log is."""
        return f"See {self.output_dir / 'train.log'} and the output above."

    def run(self, channel: WorkerChannel | None = None) -> Path:
        """Train; see `adios_tme.training.loop.run_training`."""
        return run_training(self.config, channel=channel, evaluate=self._evaluate(), admit=admit)

    def _evaluate(self) -> Evaluate | None:
        """What scores masks; half a second of imports, which runs without labels do not pay."""
        if self.config.watch.eval_labels is None:
            return None
        from adios_tme.benchmark.nuclei.during_training import evaluator

        return evaluator(self.config.watch)


@dataclass(frozen=True)
class Embedding(_Configured[EmbedConfig]):
    """Embedding a data set, as a job."""

    @property
    def device(self) -> str:
        """Where they compute."""
        return self.config.features.device

    @property
    def num_workers(self) -> int:
        """Processes that read data."""
        return self.config.num_workers

    @property
    def output_dir(self) -> Path:
        """Folder of the features."""
        return self.config.output

    @property
    def advice(self) -> str:
        """There is no log but the terminal."""
        return "See the output above."

    def run(self, channel: WorkerChannel | None = None) -> Path:
        """Embed; see `adios_tme.inference.embed.run.run_embedding`."""
        return run_embedding(self.config, channel=channel)
