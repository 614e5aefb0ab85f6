"""Embedding diagnostics: whether images are still told apart, or the student has collapsed.

Shape legend: B images of this rank, A images of all ranks, V masked views of each, D embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.distributed.collectives import gather_batch

#: Images that are looked at, at the most.
MAX_IMAGES = 1024
#: Added to the share of a singular value, as Garrido et al. 2023 have it.
EPSILON = 1e-7


@dataclass(frozen=True)
class EmbeddingDiagnostics:
    """Facts about the embeddings of one batch over all ranks, on the device."""

    embedding_std: Tensor
    """Standard deviation over images of the embeddings at unit length, mean over dimensions, times
    the root of D: 1 where they point everywhere alike, 0 where all are one."""
    rankme: Tensor
    """Effective number of dimensions (RankMe, Garrido et al. 2023, arXiv:2210.02885)."""
    alignment: Tensor
    """Mean squared distance at unit length of a masked view to its clean one (Wang and Isola 2020,
    arXiv:2005.10242); 0 where masks change nothing."""
    uniformity: Tensor
    """Log of the mean of exp(-2 d^2) over pairs of clean views (the same paper); 0 where all are
    one, the lower the more evenly they spread."""


@torch.no_grad()
def measure_embeddings(clean_BD: Tensor, masked_VBD: Tensor) -> EmbeddingDiagnostics:
    """Look at embeddings of the clean and the masked views; a collective."""
    own_BWD = torch.cat([clean_BD.unsqueeze(0), masked_VBD]).transpose(0, 1).float()
    all_AWD = gather_batch(own_BWD.contiguous())[:MAX_IMAGES]
    unit_AWD = F.normalize(all_AWD, dim=2)
    clean_AD, masked_AVD = unit_AWD[:, 0], unit_AWD[:, 1:]
    squares = torch.pdist(clean_AD).square()
    return EmbeddingDiagnostics(
        embedding_std=clean_AD.std(dim=0, correction=0).mean() * math.sqrt(clean_AD.shape[1]),
        rankme=rankme(all_AWD[:, 0]),
        alignment=(masked_AVD - clean_AD.unsqueeze(1)).square().sum(dim=2).mean(),
        uniformity=(-2 * squares).logsumexp(dim=0) - math.log(max(1, len(squares))),
    )


def rankme(embeddings_AD: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values' shares, from 1 to the lesser of A and D.

    Not finite where an embedding is not.
    """
    # The decomposition raises on what is not finite, which a line of metrics must survive.
    values = torch.linalg.svdvals(embeddings_AD.nan_to_num(0, 0, 0))
    shares = values / values.sum() + EPSILON
    rank = (-(shares * shares.log()).sum()).exp()
    return torch.where(embeddings_AD.isfinite().all(), rank, math.nan)
