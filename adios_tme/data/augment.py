"""Augmentation on the device, one draw per image.

Shape legend: B images, C channels, S stains, H x W pixels.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from adios_tme.data.stain import STAINS, optical_density

#: Each stain's density is multiplied and shifted by up to this much (Tellez et al. 2019).
STAIN_FACTOR = 0.05
STAIN_SHIFT = 0.02


def augment(images_BCHW: Tensor, kind: Literal["none", "geometric", "stain", "full"]) -> Tensor:
    """Augment uint8 images.

    Args:
        images_BCHW: RGB; square for the geometric kinds.
        kind: ``geometric`` flips and turns by quarters, ``stain`` varies the amounts of
            haematoxylin and eosin, ``full`` does both.

    Returns:
        The images, or float32 in [0, 1] where stains were varied.
    """
    if kind in ("geometric", "full"):
        images_BCHW = flip_and_turn(images_BCHW)
    if kind in ("stain", "full"):
        images_BCHW = jitter_stain(images_BCHW)
    return images_BCHW


def flip_and_turn(images_BCHW: Tensor) -> Tensor:
    """Put each image in one of the eight positions of a square."""
    draw = torch.rand(3, len(images_BCHW), 1, 1, 1, device=images_BCHW.device) < 0.5
    images_BCHW = torch.where(draw[0], images_BCHW.flip(-1), images_BCHW)
    images_BCHW = torch.where(draw[1], images_BCHW.flip(-2), images_BCHW)
    return torch.where(draw[2], images_BCHW.transpose(-1, -2), images_BCHW)


def jitter_stain(images_BCHW: Tensor) -> Tensor:
    """Vary how much of each stain an image shows, in optical density."""
    device = images_BCHW.device
    stains_SC, unmix_CS = _stains_on(device)
    density = optical_density(images_BCHW)
    amounts = torch.einsum("bchw,cs->bshw", density, unmix_CS)
    shape = (len(images_BCHW), 3, 1, 1)
    factor = 1 + STAIN_FACTOR * (2 * torch.rand(shape, device=device) - 1)
    shift = STAIN_SHIFT * math.log(10) * (2 * torch.rand(shape, device=device) - 1)
    varied = torch.einsum("bshw,sc->bchw", amounts * factor + shift, stains_SC)
    return (-varied).exp().clamp(0, 1)


@cache
def _stains_on(device: torch.device) -> tuple[Tensor, Tensor]:
    """Densities of the stains and their inverse, made once: on CUDA, both are host syncs."""
    stains_SC = torch.tensor(STAINS)
    return stains_SC.to(device), torch.linalg.inv(stains_SC).to(device)
