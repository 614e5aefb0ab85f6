"""One optimiser per network, and which of its weights decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adios_tme.config.optim import OptimConfig
from adios_tme.optim.lars import LARS

#: Learned vectors that are places or tokens, not maps from one width to another.
TOKENS = ("cls_token", "reg_token", "pos_embed")


def build_optimizer(
    groups: list[dict[str, Any]], optim: OptimConfig, lr: float
) -> torch.optim.Optimizer:
    """An optimiser of some weights, one kernel a step where torch has it fused.

    Args:
        groups: The weights; see `parameter_groups`.
        optim: Settings.
        lr: First learning rate; the loop sets it anew each step.
    """
    if optim.use_lars:
        return LARS(groups, lr=lr, momentum=optim.momentum, eta=optim.lars_eta)
    if optim.optimizer_type == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    sgd = torch.optim.SGD(groups, lr=lr, momentum=optim.momentum, fused=True)
    if optim.momentum:
        # A fused first step that is refused would leave the buffers it has just made unwritten.
        for group in sgd.param_groups:
            for weight in group["params"]:
                sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return sgd


def parameter_groups(weight_decay: float, *networks: nn.Module) -> list[dict[str, Any]]:
    """Split the learning weights in two groups: matrices and kernels decay, the rest does not.

    Biases, norms, LayerScale (all one-dimensional), tokens and positions are left alone.
    """
    decaying: list[nn.Parameter] = []
    still: list[nn.Parameter] = []
    named = (pair for network in networks for pair in network.named_parameters())
    for name, weight in named:
        if not weight.requires_grad:
            continue
        alone = weight.ndim <= 1 or name.rpartition(".")[2] in TOKENS
        (still if alone else decaying).append(weight)
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": still, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
