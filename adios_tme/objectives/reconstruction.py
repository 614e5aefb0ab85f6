"""Masks whose regions the student's own features tell apart.

Shape legend: B images, N masks, H x W pixels, h x w patches, P = h * w, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Smallest area and variance that is divided by.
SMALLEST = 1e-6


def reconstruction_penalty(masks_BNHW: Tensor, features_BDhw: Tensor) -> Tensor:
    """Share of the student's patch features that one vector for each mask's region cannot rebuild.

    A region is given by the mean feature under its mask, and a patch is rebuilt from the regions
    in the shares in which the masks have it. What is measured is the squared distance to the true
    features, as slots that rebuild self-supervised features are trained by (DINOSAUR, Seitzer et
    al. 2023, arXiv:2209.14860, equation 2), with means in the place of slots and decoder. It is
    divided by the variance of the features over the image: 1 for masks that are alike everywhere,
    0 where every region is of one kind.

    Args:
        masks_BNHW: Soft masks; they add up to one.
        features_BDhw: Features of the patches of the whole images, any scale, normalised here.

    Returns:
        Scalar, averaged over images.
    """
    shares_BNP = _of_patches(masks_BNHW.float(), features_BDhw.shape[2:]).flatten(2)
    features_BPD = F.normalize(features_BDhw.float().flatten(2).transpose(1, 2), dim=2)
    weight_BN1 = shares_BNP.sum(dim=2, keepdim=True).clamp(min=SMALLEST)
    regions_BND = torch.bmm(shares_BNP, features_BPD) / weight_BN1
    rebuilt_BPD = torch.bmm(shares_BNP.transpose(1, 2), regions_BND)
    left_B = (features_BPD - rebuilt_BPD).square().sum(dim=2).mean(dim=1)
    variance_B = features_BPD.var(dim=1, correction=0).sum(dim=1)
    return (left_B / variance_B.clamp(min=SMALLEST)).mean()


def _of_patches(masks_BNHW: Tensor, grid: torch.Size) -> Tensor:
    """Mean of the masks (B, N, h, w) over each patch."""
    height, width = grid
    cells: Tensor = masks_BNHW.unflatten(3, (width, -1)).unflatten(2, (height, -1))
    return cells.mean(dim=(3, 5))
