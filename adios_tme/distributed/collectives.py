"""What ranks say to each other: flags, small sums, objects, and batches with their gradient.

Shape legend: B rows of this rank, R ranks, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adios_tme.distributed.world import num_ranks, own_rank
from adios_tme.errors import AdiosError

# torch renamed both in 2.14 and warns of the old names; the minimum version has only those.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

Answer = TypeVar("Answer")


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


def average_gradients(weights: Sequence[nn.Parameter]) -> None:
    """Average gradients over ranks, for weights that no DDP wrapper sees to."""
    if num_ranks() == 1:
        return
    for weight in weights:
        if weight.grad is not None:
            dist.all_reduce(weight.grad)
            weight.grad /= num_ranks()


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


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise an error of ours on every rank when any meets it in the block.

    A collective on the host at its end. Where several meet one, all raise that of the lowest rank.
    """
    met: AdiosError | None = None
    try:
        yield
    except AdiosError as error:
        met = error
    if any_rank(met is not None):
        raise next(error for error in from_all_ranks(met) if error)


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
