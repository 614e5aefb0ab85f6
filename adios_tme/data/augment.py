"""Augmentation on the device, one draw per image.

Shape legend: B images, C channels, S stains, H x W pixels.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.config.data import DataConfig
from adios_tme.data.stain import STAINS, as_unit, optical_density

#: Each stain's density is multiplied and shifted by up to this much (Tellez et al. 2019).
STAIN_FACTOR = 0.05
STAIN_SHIFT = 0.02
#: Standard deviation of a blur as a share of the image's side, and how far its kernel reaches in
#: standard deviations. Chen et al. 2020 go up to 2 pixels of 224.
BLUR = (0.1 / 224, 2 / 224)
BLUR_REACH = 3


def augment(images_BCHW: Tensor, data: DataConfig) -> Tensor:
    """Augment uint8 images; what is off draws nothing.

    Args:
        images_BCHW: RGB; square where they are turned.
        data: Which augmentations. Crops are none of them: they are taken once images are
            normalised.

    Returns:
        The images, or float32 in [0, 1] where colours or sharpness were varied.
    """
    if data.augment in ("geometric", "full"):
        images_BCHW = flip_and_turn(images_BCHW)
    if data.augment in ("stain", "full"):
        images_BCHW = jitter_stain(images_BCHW)
    if data.augment_colour:
        images_BCHW = jitter_colour(images_BCHW, data.augment_colour)
    if data.augment_blur:
        images_BCHW = blur_some(images_BCHW, data.augment_blur)
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


def jitter_colour(images_BCHW: Tensor, strength: float) -> Tensor:
    """Multiply brightness, contrast and saturation by factors of up to 1 ± strength, in turn."""
    unit = as_unit(images_BCHW)
    shape = (3, len(unit), 1, 1, 1)
    factors = 1 + strength * (2 * torch.rand(shape, device=unit.device) - 1)
    bright = (unit * factors[0]).clamp(0, 1)
    mean = _lightness(bright).mean(dim=(2, 3), keepdim=True)
    contrasted = torch.lerp(mean, bright, factors[1]).clamp(0, 1)
    return torch.lerp(_lightness(contrasted), contrasted, factors[2]).clamp(0, 1)


def _lightness(unit_BCHW: Tensor) -> Tensor:
    """(B, 1, H, W), by the weights of ITU-R BT.601."""
    red, green, blue = unit_BCHW.split(1, dim=1)
    lightness: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return lightness


def blur_some(images_BCHW: Tensor, share: float) -> Tensor:
    """Blur a share of the images, each by its own Gaussian; edges are mirrored."""
    unit = as_unit(images_BCHW)
    num_images, side = len(unit), min(unit.shape[2:])
    low, high = (side * bound for bound in BLUR)
    reach = min(math.ceil(BLUR_REACH * high), side - 1)
    is_blurred, sigma = torch.rand(2, num_images, 1, device=unit.device)
    sigma = low + (high - low) * sigma
    places = torch.arange(-reach, reach + 1, device=unit.device)
    kernels = (-((places / sigma) ** 2) / 2).exp()
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    images_as_channels = F.pad(unit, [reach] * 4, mode="reflect").flatten(0, 1).unsqueeze(0)
    groups = len(kernels)
    rows = F.conv2d(images_as_channels, kernels[:, None, None, :], groups=groups)
    blurred = F.conv2d(rows, kernels[:, None, :, None], groups=groups).view_as(unit)
    return torch.where(is_blurred[:, :, None, None] < share, blurred, unit)


@cache
def _stains_on(device: torch.device) -> tuple[Tensor, Tensor]:
    """Densities of the stains and their inverse, made once: on CUDA, both are host syncs."""
    stains_SC = torch.tensor(STAINS)
    return stains_SC.to(device), torch.linalg.inv(stains_SC).to(device)
