"""Which of an image's masks become views.

Shape legend: B images, N masks, V masks that become views, H x W pixels.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from adios_tme.config.model import Variant


class Sampler(Protocol):
    """Chooses masks; both halves of a step call it."""

    def __call__(self, masks_BNHW: Tensor) -> Tensor:
        """Masks (B, V, H, W) that are applied, with the gradient of those that they are."""


def adios(masks_BNHW: Tensor) -> Tensor:
    """Every mask becomes a view (Shi et al. 2022, arXiv:2201.13100)."""
    return masks_BNHW


def adios_s(masks_BNHW: Tensor) -> Tensor:
    """One mask of each image, drawn anew by each half of a step (the same paper, ADIOS-s)."""
    num_images, num_masks = masks_BNHW.shape[:2]
    drawn = torch.randint(num_masks, (num_images,), device=masks_BNHW.device)
    rows = torch.arange(num_images, device=masks_BNHW.device)
    return masks_BNHW[rows, drawn].unsqueeze(1)


SAMPLERS: dict[Variant, Sampler] = {"adios": adios, "adios_s": adios_s}
