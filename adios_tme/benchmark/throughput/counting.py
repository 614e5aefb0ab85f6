"""Arithmetic and memory that are counted on a call that is really done."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(function: Callable[[], object]) -> int:
    """FLOPs that a call really does, backward passes inside it included.

    Compiled regions and attention back ends other than SDPA hide theirs.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return int(counter.get_total_flops())


def kept_bytes(network: nn.Module, function: Callable[[], object]) -> int:
    """Bytes that autograd keeps from a call for its backward pass, beside the network's weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # what is freed could lend its address to another

    def note(kept: Tensor) -> Tensor:
        alive.append(kept)
        storage = kept.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        alive.append(function())  # type: ignore[arg-type]
    return sum(size for place, size in sizes.items() if place not in weights)
