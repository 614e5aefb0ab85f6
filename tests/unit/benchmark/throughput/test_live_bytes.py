"""Bytes alive, against calls whose allocations are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adios_tme.benchmark.throughput.live_bytes import peak_bytes


def chained(start: Tensor) -> Tensor:
    """At most the start and two tensors beside it; views are free."""
    first = start + 1
    second = first * 2
    del first
    view = second.view(-1, 10)
    del second
    return view.sum(dim=0)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_has_gone_and_what_is_a_view_is_not_counted(device: str) -> None:
    start = torch.zeros(1000, device=device)
    assert peak_bytes(lambda: chained(start)) == 8000
    assert peak_bytes(lambda: chained(start), [start]) == 12000
    assert peak_bytes(lambda: chained(start), [start, start.view(10, 100)]) == 12000


def test_what_autograd_keeps_is_counted_until_it_is_used() -> None:
    weight = torch.ones(1000, requires_grad=True)

    def forward() -> Tensor:
        return weight.exp().exp().sum()

    assert peak_bytes(forward) == 8000 + 4
    # Back: both results, the gradients of the sum and of one of them, and the weight's at the end.
    assert 12000 <= peak_bytes(lambda: forward().backward()) < 16000 + 100


def test_what_the_call_lets_go_of_makes_room() -> None:
    held = [torch.zeros(1000)]

    def replace() -> None:
        held.clear()
        held.append(torch.zeros(1000))

    assert peak_bytes(replace, list(held)) == 8000  # the list holds on to it
    assert peak_bytes(replace, (tensor for tensor in held)) == 4000
