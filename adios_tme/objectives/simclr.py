"""SimCLR: the contrastive loss between an image and its masked views.

Shape legend: B images of this rank, A images of all ranks, V masked views of each, D embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.config.objective import LossConfig
from adios_tme.distributed.collectives import gather_batch
from adios_tme.distributed.world import own_rank
from adios_tme.models.student import Student
from adios_tme.objectives.base import Objective
from adios_tme.optim.schedule import Schedule


class SimCLR(Objective):
    """NT-Xent of each masked view to the clean one; see `simclr_loss`."""

    def loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        """One loss for each masked view; embeddings are (B, D) and (V, B, D)."""
        return simclr_loss(clean, masked, now.temperature)


def build(student: Student, loss: LossConfig) -> SimCLR:
    """The objective; it has no parameters of its own, whatever the student."""
    return SimCLR()


def simclr_loss(clean_BD: Tensor, masked_BD: Tensor, temperature: float) -> Tensor:
    """NT-Xent over the 2A embeddings of the clean and one masked view of every rank's images.

    Chen et al. 2020, arXiv:2002.05709, equation 1: positives both ways, self-pairs left out.
    Each rank computes the rows of its own images alone; the gradient through the other ranks'
    columns is exact (`adios_tme.distributed.collectives.gather_batch`). In single precision.

    Args:
        clean_BD: Embeddings of the whole images; any scale, normalised here.
        masked_BD: Embeddings of the same images, masked, in the same order; or (V, B, D) for
            several masked views, each compared with the clean one.
        temperature: Softmax temperature, > 0.

    Returns:
        Scalar in nats, averaged over this rank's 2B rows, or (V,) of them; the mean over ranks is
        the global loss.

    Raises:
        ValueError: If the batches differ in shape or the temperature is not above zero.

    Example:
        >>> import torch
        >>> from adios_tme import simclr_loss
        >>> clean, masked = torch.eye(4), torch.eye(4)  # each view is like its own image alone
        >>> round(float(simclr_loss(clean, masked, temperature=0.1)), 4)
        0.0003
        >>> simclr_loss(clean, torch.randn(3, 4, 4), temperature=0.1).shape  # 3 masked views
        torch.Size([3])
    """
    if masked_BD.shape[-2:] != clean_BD.shape:
        raise ValueError(
            f"clean {tuple(clean_BD.shape)} and masked {tuple(masked_BD.shape)} embeddings differ."
        )
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} is not above zero.")
    clean = F.normalize(clean_BD.float(), dim=-1)
    masked_VBD = F.normalize(masked_BD.float(), dim=-1).reshape(-1, *clean.shape)
    losses_V = _nt_xent(clean, masked_VBD, temperature)
    return losses_V if masked_BD.ndim > 2 else losses_V.squeeze(0)


def _nt_xent(clean_BD: Tensor, masked_VBD: Tensor, temperature: float) -> Tensor:
    num_own = len(clean_BD)
    # One gather for all views: images first, so that ranks join along the batch.
    own_BWD = torch.cat([clean_BD.unsqueeze(0), masked_VBD]).transpose(0, 1)
    all_WAD = gather_batch(own_BWD.contiguous()).transpose(0, 1)
    all_clean_AD, all_masked_VAD = all_WAD[0], all_WAD[1:]
    clean_to_clean = clean_BD @ all_clean_AD.T / temperature
    clean_to_masked = clean_BD @ all_masked_VAD.transpose(1, 2) / temperature
    masked_to_clean = masked_VBD @ all_clean_AD.T / temperature
    masked_to_masked = masked_VBD @ all_masked_VAD.transpose(1, 2) / temperature

    place_B = own_rank() * num_own + torch.arange(num_own, device=clean_BD.device)
    itself = place_B[:, None] == torch.arange(len(all_clean_AD), device=clean_BD.device)
    clean_to_clean = clean_to_clean.masked_fill(itself, float("-inf")).expand_as(clean_to_masked)
    masked_to_masked = masked_to_masked.masked_fill(itself, float("-inf"))
    rows = torch.cat(
        [
            torch.cat([clean_to_masked, clean_to_clean], dim=2),
            torch.cat([masked_to_clean, masked_to_masked], dim=2),
        ],
        dim=1,
    )  # (V, 2B, 2A): the positive of row b and of row B + b is column place_B[b]
    positive = place_B.repeat(2).expand(len(rows), -1)
    losses = F.cross_entropy(rows.transpose(1, 2), positive, reduction="none")
    return losses.mean(dim=1)
