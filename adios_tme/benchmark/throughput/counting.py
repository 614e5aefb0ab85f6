"""Arithmetic and memory that are counted on a call, be it of shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


def count_flops(function: Callable[[], object]) -> int:
    """FLOPs that a call really does, backward passes inside it included.

    Compiled regions and attention back ends other than SDPA hide theirs.
    """
    with _flop_counter() as counter:
        function()
    return int(counter.get_total_flops())


def count_passes(function: Callable[[], Tensor]) -> tuple[int, int]:
    """FLOPs of a call, and of the pass back from what it returns."""
    with _flop_counter() as counter:
        returned = function()
        there = int(counter.get_total_flops())
        returned.sum().backward()
    return there, int(counter.get_total_flops()) - there


@contextmanager
def _flop_counter() -> Iterator[FlopCounterMode]:
    from torch.utils.flop_counter import FlopCounterMode  # with triton, which no run needs

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        yield counter


class _FusedAttention(TorchFunctionMode):
    """Lets attention keep what a fused kernel keeps, also on a device that has shapes alone.

    There torch takes its plain formula, which keeps the weights of all pairs of tokens.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args)[0]
        return func(*args, **(kwargs or {}))


def kept_bytes(network: nn.Module, function: Callable[[], object]) -> int:
    """Bytes that autograd keeps from a call for its backward pass, beside the network's weights.

    The network is on the CPU, or on the meta device, where nothing is computed.
    """
    alive: list[object] = [weight.untyped_storage() for weight in network.parameters()]
    weights = {id(storage) for storage in alive}
    sizes: dict[int, int] = {}

    def note(kept: Tensor) -> Tensor:
        storage = kept.untyped_storage()
        sizes[id(storage)] = storage.nbytes()
        alive.append(storage)  # what is freed could lend its place to another
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept), _FusedAttention():
        alive.append(function())
    return sum(size for place, size in sizes.items() if place not in weights)
