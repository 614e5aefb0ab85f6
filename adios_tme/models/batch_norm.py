"""Batch norms of a network over the images of every rank, which a bad batch does not spoil."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from adios_tme.distributed.collectives import gather_batch
from adios_tme.distributed.world import num_ranks


class SharedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over all ranks; see `normalise`."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        return normalise(self, x)


class SharedBatchNormAct2d(BatchNormAct2d):
    """timm's batch norm with an activation behind it, over all ranks; see `normalise`."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), and apply the activation."""
        activated: Tensor = self.act(self.drop(normalise(self, x)))
        return activated


SHARED: dict[type[nn.Module], type[nn.modules.batchnorm._BatchNorm]] = {
    nn.BatchNorm2d: SharedBatchNorm2d,
    BatchNormAct2d: SharedBatchNormAct2d,
}


def share_batch_norms(network: nn.Module) -> None:
    """Make the batch norms of a network see every rank, in place; weights keep their names.

    Raises:
        ValueError: If it has one that cannot.
    """
    for module in network.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        is_usual = module.affine and module.track_running_stats and module.momentum is not None
        if type(module) not in SHARED or not is_usual:
            raise ValueError(f"{type(module).__name__} sees the images of one process alone")
        module.__class__ = SHARED[type(module)]


def normalise(norm: nn.BatchNorm2d, x_BCHW: Tensor) -> Tensor:
    """Batch norm with the statistics of every rank's images in training; then a collective.

    SyncBatchNorm on any device, with exact gradients. The running statistics are moved by what is
    finite alone, so that an update which is refused leaves none that is not; and while the weights
    learn, so that the mask model's half leaves no trace.
    """
    if not norm.training:
        return F.batch_norm(
            x_BCHW, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    variance_C, mean_C = torch.var_mean(x_BCHW.float(), dim=(0, 2, 3), correction=0)
    if num_ranks() > 1:
        means_RC, variances_RC = gather_batch(torch.stack([mean_C, variance_C])[None]).unbind(1)
        mean_C = means_RC.mean(dim=0)
        variance_C = (variances_RC + (means_RC - mean_C).square()).mean(dim=0)
    if norm.weight.requires_grad:
        num_values = num_ranks() * x_BCHW.numel() / x_BCHW.shape[1]
        _follow(norm, mean_C.detach(), variance_C.detach() * num_values / max(1, num_values - 1))
    scale_C = (variance_C + norm.eps).rsqrt() * norm.weight
    shift_C = norm.bias - mean_C * scale_C
    return torch.addcmul(_as_channels(shift_C), x_BCHW, _as_channels(scale_C)).to(x_BCHW.dtype)


def _follow(norm: nn.BatchNorm2d, mean_C: Tensor, variance_C: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    for running, now in ((norm.running_mean, mean_C), (norm.running_var, variance_C)):
        running.lerp_(torch.where(now.isfinite(), now, running), norm.momentum)


def _as_channels(values_C: Tensor) -> Tensor:
    return values_C.view(1, -1, 1, 1)
