"""Embedding diagnostics: whether images are still told apart, or the student has collapsed.

Shape legend: B images of this rank, A images of all ranks, V masked views of each, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.distributed.collectives import gather_batch

#: Images that are looked at, at the most.
MAX_IMAGES = 1024
#: Added to the share of a singular value, as Garrido et al. 2023 have it.
EPSILON = 1e-7
#: Spread of embeddings, relative to those that point everywhere, below which they have collapsed.
COLLAPSED = 0.05
#: Number of directions that embeddings use, below which they have collapsed.
FEW_DIRECTIONS = 1.1
#: Lines of the log over which both are averaged before they are complained about.
COLLAPSE_LINES = 5


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


class CollapseWarnings:
    """Says in words that embeddings have collapsed, once until it has passed.

    Args:
        first_iteration: Lines count from here on; first embeddings are much alike.
    """

    def __init__(self, first_iteration: int) -> None:
        self._first_iteration = first_iteration
        self._lines: list[tuple[float, float]] = []
        self._active: set[str] = set()

    def warnings(self, line: dict[str, Any]) -> list[str]:
        """What is wrong now and was not before; ``line`` is a line of metrics."""
        spread, rank = line["embedding_std"], line["rankme"]
        if line["iteration"] < self._first_iteration or spread is None or rank is None:
            return []
        self._lines = [*self._lines, (spread, rank)][-COLLAPSE_LINES:]
        if len(self._lines) < COLLAPSE_LINES:
            return []
        means = (sum(column) / COLLAPSE_LINES for column in zip(*self._lines, strict=True))
        found = dict(self._faults(*means))
        new = [text for kind, text in found.items() if kind not in self._active]
        self._active = set(found)
        return new

    def _faults(self, spread: float, rank: float) -> Iterator[tuple[str, str]]:
        advice = (
            "Compare with --objective simclr, or try a lower --lr, a longer --warmup-iterations "
            "or more images per update."
        )
        if spread < COLLAPSED:
            yield (
                "alike",
                f"The student has collapsed: the embeddings of different images are nearly the "
                f"same (embedding_std {spread:.3f}, where 1 is spread evenly, over "
                f"{COLLAPSE_LINES} log lines). {advice}",
            )
        elif rank < FEW_DIRECTIONS:
            yield (
                "few",
                f"The student has collapsed to few dimensions: its embeddings use {rank:.1f} of "
                f"them (rankme over {COLLAPSE_LINES} log lines). {advice}",
            )
