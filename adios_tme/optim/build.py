"""One optimiser per network."""

from __future__ import annotations

import torch
from torch import nn

from adios_tme.config.optim import OptimConfig
from adios_tme.optim.groups import parameter_groups
from adios_tme.optim.lars import LARS


def build_optimizer(network: nn.Module, optim: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """The optimiser of a network, one kernel a step where torch has it fused.

    Args:
        network: Its weights that learn are split into decaying and other ones.
        optim: Settings.
        lr: First learning rate; the loop sets it anew each step.
    """
    groups = parameter_groups(network, optim.weight_decay)
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
