"""The processes of a run: who they are, where they compute, and the group that they form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist

from adios_tme.errors import ConfigError


@dataclass(frozen=True)
class World:
    """Place of this process among all that train together."""

    rank: int
    num_ranks: int
    rank_on_node: int
    ranks_per_node: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0


def was_launched() -> bool:
    """Whether torchrun or an elastic agent started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def torchrun_shares_store() -> bool:
    """Whether processes that torchrun starts again read addresses of a killed one in its store."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def choose_device(kind: Literal["auto", "cuda", "cpu"], rank_on_node: int = 0) -> torch.device:
    """The device of one process.

    Raises:
        ConfigError: If CUDA is asked for and there is none.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "compute: device=cuda, but torch sees no CUDA device. "
            "Use --device cpu, or check the driver with nvidia-smi."
        )
    if kind == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank_on_node)


def named_device(device: str | torch.device) -> torch.device:
    """A device that a caller names.

    Raises:
        ValueError: If torch knows no such device.
    """
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is unknown. Use 'cpu', 'cuda' or 'cuda:0', or a torch.device."
        ) from error


@contextmanager
def process_group(
    device: Literal["auto", "cuda", "cpu"] = "auto", timeout_seconds: float = 600
) -> Iterator[World]:
    """Join the process group that the launcher laid out, or stand alone without one.

    After an exception the group is left without a collective: other ranks may be gone.

    Args:
        device: Where its processes compute.
        timeout_seconds: How long a collective waits for the other ranks before it fails.
    """
    if not was_launched():
        yield World(0, 1, 0, 1, choose_device(device))
        return
    rank_on_node = int(os.environ.get("LOCAL_RANK", "0"))
    place = choose_device(device, rank_on_node)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    # Flags and small sums travel by gloo, so that agreeing on them never waits for the GPU.
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    try:
        yield World(
            rank=dist.get_rank(),
            num_ranks=dist.get_world_size(),
            rank_on_node=rank_on_node,
            ranks_per_node=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            device=place,
        )
    finally:
        dist.destroy_process_group()


def num_ranks() -> int:
    """Processes in the group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_rank() -> int:
    """Rank of this process; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def shared_store() -> Any:
    """The key-value store of the group; None without one."""
    return dist.distributed_c10d._get_default_store() if dist.is_initialized() else None
