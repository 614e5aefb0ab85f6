"""Which of an image's masks become views.

Shape legend: B images, N masks, V masks that become views, H x W pixels.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Sampler(Protocol):
    """Chooses masks; both halves of a step call it."""

    def __call__(self, masks_BNHW: Tensor) -> Tensor:
        """Masks (B, V, H, W) that are applied, with the gradient of those that they are."""


def adios(masks_BNHW: Tensor) -> Tensor:
    """Every mask becomes a view (Shi et al. 2022, arXiv:2201.13100)."""
    return masks_BNHW
