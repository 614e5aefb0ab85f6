"""A network that follows another one slowly."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def move_towards(slow: nn.Module, fast: nn.Module, share: float) -> None:
    """Move each weight of a network by a share of its way to another's; one kernel for all.

    Running statistics, which follow slowly themselves, are taken as they are.
    """
    pairs = zip(slow.parameters(), fast.parameters(), strict=True)
    own, others = map(list, zip(*pairs, strict=True))
    torch._foreach_lerp_(own, others, share)
    for own_buffer, buffer in zip(slow.buffers(), fast.buffers(), strict=True):
        own_buffer.copy_(buffer)


class MovingAverage:
    """Exponential moving average of a network's weights, in evaluation mode.

    The decay rises from 1/10 to its final value, so that the average forgets the first weights
    soon (as in Tarvainen and Valpola 2017, arXiv:1703.01780).

    Args:
        network: The network that is followed.
        decay: Share of the average that an update keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def restart(self, network: nn.Module) -> None:
        """Take a network's weights as they are."""
        self.network.load_state_dict(network.state_dict())
        self.num_updates = 0

    def update(self, network: nn.Module) -> None:
        """Move a step towards the network."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        move_towards(self.network, network, 1 - decay)
        self.num_updates += 1

    def state(self) -> dict[str, Any]:
        """Weights and count, for a checkpoint."""
        return {"weights": self.network.state_dict(), "num_updates": self.num_updates}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint's average."""
        self.network.load_state_dict(state["weights"])
        self.num_updates = state["num_updates"]
