"""The predictor of BYOL and SimSiam, and the batch norm that it needs.

Shape legend: V views, B images of this rank, D embedding; V may be several dimensions or none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adios_tme.distributed.collectives import gather_batch


class WholeBatchNorm(nn.Module):
    """Batch norm over the images of every rank, view by view, with exact gradients.

    SyncBatchNorm in one gather, on any device. No running averages are kept: what stands behind it
    is there for training alone, where the batch's own statistics count, and the mask model's half
    leaves no trace in it.

    Args:
        width: Of the rows.
        affine: Whether a learned scale and shift follow.
        eps: Added to the variance.
    """

    def __init__(self, width: int, *, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self._eps = eps

    def forward(self, x_VBD: Tensor) -> Tensor:
        """Normalise rows (..., B, D) over B of all ranks; a collective."""
        own_variance, own_mean = torch.var_mean(x_VBD, dim=-2, correction=0, keepdim=True)
        means, variances = gather_batch(torch.stack([own_mean, own_variance])[None]).unbind(1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        normed = (x_VBD - mean) * (variance + self._eps).rsqrt()
        if self.weight is None or self.bias is None:
            return normed
        return torch.addcmul(self.bias, normed, self.weight)


class Predictor(nn.Sequential):
    """MLP from embeddings (..., B, D) to predictions of the other view's.

    Linear, batch norm, ReLU, linear, as in Grill et al. 2020 (arXiv:2006.07733) and Chen and He
    2021 (arXiv:2011.10566). The batch norm stays, although it couples images: our head has no norm,
    and without any SimSiam hardly learns (its table 3). The first layer has no bias, which the norm
    would take away again.

    Args:
        width: Of an embedding.
        hidden_dim: Between the layers.
    """

    def __init__(self, width: int, hidden_dim: int) -> None:
        super().__init__(
            nn.Linear(width, hidden_dim, bias=False),
            WholeBatchNorm(hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, width),
        )


def similarity(predicted: Tensor, target: Tensor) -> Tensor:
    """Cosine of predictions (V, B, D) and targets (V, B, D) or (B, D), averaged over images.

    No gradient reaches the targets.

    Returns:
        (V,), in [-1, 1].
    """
    return F.cosine_similarity(predicted, target.detach(), dim=-1).mean(dim=-1)
