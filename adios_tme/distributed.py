"""The processes of a run: who they are, and the few things they say to each other.

Shape legend: B rows of this rank, R ranks, D width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from adios_tme.errors import AdiosError, ConfigError

# torch renamed both in 2.14 and warns of the old names; the minimum version has only those.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

Answer = TypeVar("Answer")


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


def trips_over_the_killed() -> bool:
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


def barrier() -> None:
    """Wait until every rank is here."""
    any_rank(False)


def any_rank(flag: bool) -> bool:
    """Whether any rank said yes; every rank gets the same answer."""
    return bool(max_over_ranks(int(flag)))


def max_over_ranks(value: int) -> int:
    """The largest of a host-side number over all ranks."""
    if num_ranks() == 1:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())


def sum_over_ranks(*counts: int) -> list[int]:
    """Sum host-side counts over all ranks."""
    totals = torch.tensor(counts, dtype=torch.int64)
    if num_ranks() > 1:
        dist.all_reduce(totals)
    return [int(total) for total in totals]


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of a tensor over all ranks, on the host and in double precision (a host sync)."""
    means = values.detach().to("cpu", torch.float64)
    if num_ranks() > 1:
        dist.all_reduce(means)
        means /= num_ranks()
    return means


def on_first_rank(do: Callable[[], Answer]) -> Answer:
    """Let the first rank do something for all: each returns what it returned or raises its error.

    Only errors of ours travel; after any other one the first rank is gone, and the others fail.
    """
    if num_ranks() == 1:
        return do()
    outcome: list[Any] = [None, None]
    if own_rank() == 0:
        try:
            outcome[0] = do()
        except AdiosError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise outcome[1]
    answer: Answer = outcome[0]
    return answer


def shared_store() -> Any:
    """The key-value store of the group; None without one."""
    return dist.distributed_c10d._get_default_store() if dist.is_initialized() else None


def from_all_ranks(item: Any) -> list[Any]:
    """One picklable object of every rank, in rank order."""
    if num_ranks() == 1:
        return [item]
    items: list[Any] = [None] * num_ranks()
    dist.all_gather_object(items, item)
    return items


def gather_batch(x_BD: Tensor) -> Tensor:
    """Stack the rows of every rank, keeping the gradient exact.

    The backward pass returns to each rank the sum of what all ranks' losses say about its rows, so
    that the mean over ranks of the losses has the gradient of one process with all the rows.

    Args:
        x_BD: This rank's rows; the same shape on every rank.

    Returns:
        (R*B, D) rows in rank order; ``x_BD`` itself without a process group.
    """
    if num_ranks() == 1:
        return x_BD
    gathered: Tensor = _GatherBatch.apply(x_BD)
    return gathered


class _GatherBatch(torch.autograd.Function):
    """All-gather forward, reduce-scatter backward."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        gathered = x_BD.new_empty((num_ranks() * x_BD.shape[0], *x_BD.shape[1:]))
        _all_gather(gathered, x_BD.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        own = grad.new_empty((grad.shape[0] // num_ranks(), *grad.shape[1:]))
        _reduce_scatter(own, grad.contiguous())
        return own
