"""How many processes train, and where."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from adios_tme.config.base import Config


class LaunchConfig(Config):
    """Worker processes and their rendezvous."""

    nproc_per_node: str = "auto"
    """Training processes on each machine; auto: one per GPU, or one on a CPU."""

    nnodes: str = "1"
    """Machines: a number, or MIN:MAX for a run that goes on when some leave or join."""

    rdzv_endpoint: str | None = None
    """HOST:PORT where machines meet; needed with more than one."""

    max_restarts: int = Field(default=3, ge=0)
    """How often a failed group of processes is started again from the last checkpoint."""

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
