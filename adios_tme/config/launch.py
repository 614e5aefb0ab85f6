"""How many processes do the work, and where."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import Config, OtherNames, is_changed


class LaunchConfig(Config):
    """Worker processes and their rendezvous."""

    nproc_per_node: Annotated[str, OtherNames("gpus", "num_gpus", "devices")] = "auto"
    """Processes on each machine; auto: one per GPU, or one on a CPU."""

    nnodes: str = "1"
    """Machines: a number, or MIN:MAX for a run that goes on when some leave or join."""

    rdzv_endpoint: str | None = None
    """HOST:PORT where machines meet; needed with more than one."""

    max_restarts: int = Field(default=3, ge=0)
    """How often a failed group of processes is started again, to go on from what is saved."""

    collective_timeout_seconds: int = Field(default=600, ge=1)
    """How long a process waits for the others in an exchange before it fails; the log says on whom
    it waits well before."""

    join_wait_seconds: int = Field(default=30, ge=1)
    """With MIN:MAX machines: how long the run waits for more once MIN are there."""

    @field_validator("nproc_per_node")
    @classmethod
    def _count_or_auto(cls, value: str) -> str:
        if value != "auto" and not re.fullmatch(r"[1-9]\d*", value):
            raise ValueError(f"expected auto or a number of processes, got {value!r}.")
        return value

    @field_validator("nnodes")
    @classmethod
    def _count_or_range(cls, value: str) -> str:
        match = re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*))?", value)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"expected a number of machines or MIN:MAX, got {value!r}.")
        return value


class ClusterConfig(Config):
    """Submitting to SLURM (needs the extra `slurm`)."""

    slurm: bool = False
    """Submit it as a job of --nnodes machines, with a task on each that starts --nproc_per_node
    processes; it saves and requeues itself before its time is over."""

    dry_run: bool = False
    """Print the script that --slurm would submit, and submit nothing."""

    partition: str | None = None
    """Partition of the cluster."""

    time: str = "24:00:00"
    """Time limit of the job: minutes, HH:MM:SS or D-HH:MM:SS; the work may take many such times."""

    account: str | None = None
    """Account that pays."""

    constraint: str | None = None
    """Features that the machines must have, as in `a100|h100`."""

    qos: str | None = None
    """Quality of service."""

    gpus_per_node: int | None = Field(default=None, ge=0)
    """GPUs asked for on each machine; absent: one a process, or none with --device cpu."""

    mem_gb: int | None = Field(default=None, ge=1)
    """Memory asked for on each machine in GB; absent: the cluster's default."""

    signal_seconds: int = Field(default=120, ge=10)
    """How long before the time limit the job is told to save and requeue."""

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        minutes_of(value)
        return value

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        given = [name for name in type(self).model_fields if is_changed(self, name)]
        if not self.slurm and given:
            raise ValueError(
                f"{given[0]}={getattr(self, given[0])} would be ignored: slurm=False. "
                f"Add --slurm, or drop it."
            )
        if self.slurm and minutes_of(self.time) * 60 <= self.signal_seconds:
            raise ValueError(
                f"time={self.time} is no longer than signal_seconds={self.signal_seconds}. "
                f"Raise --time, or lower --signal-seconds."
            )
        return self


def minutes_of(time: str) -> int:
    """Minutes in a time as SLURM writes it, rounded up.

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        raise ValueError(f"expected minutes, HH:MM:SS or D-HH:MM:SS, got {time!r}.")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    # As sbatch reads it: D-H, D-H:M and D-H:M:S with days; else M, M:S and H:M:S.
    first = 0 if days or len(numbers) == 3 else 1
    hours, minutes, seconds = ([0] * first + numbers + [0, 0])[:3]
    return int(days or 0) * 1440 + hours * 60 + minutes + (seconds > 0)
