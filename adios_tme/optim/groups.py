"""Which weights decay."""

from __future__ import annotations

from typing import Any

from torch import nn

#: Learned vectors that are places or tokens, not maps from one width to another.
TOKENS = ("cls_token", "reg_token", "pos_embed")


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the learning weights in two groups: matrices and kernels decay, the rest does not.

    Biases, norms, LayerScale (all one-dimensional), tokens and positions are left alone.
    """
    decaying: list[nn.Parameter] = []
    still: list[nn.Parameter] = []
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            continue
        alone = weight.ndim <= 1 or name.rpartition(".")[2] in TOKENS
        (still if alone else decaying).append(weight)
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": still, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
