"""Patches and where they stand, as timm's ViTs have them, without the time that timm takes to load.

Shape legend: B images, C channels, H x W pixels, h x w patches, P = h*w, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """A linear map of square patches (Dosovitskiy et al. 2021, arXiv:2010.11929).

    Args:
        img_size: Side in pixels of images whose positions are learned.
        patch_size: Side of a patch in pixels.
        embed_dim: Width.
    """

    def __init__(self, img_size: int, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.img_size, self.patch_size = img_size, patch_size
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)

    @property
    def num_patches(self) -> int:
        """Of an image of ``img_size``."""
        side = self.img_size // self.patch_size
        return side * side

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Patches (B, h, w, D) of images whose sides are multiples of the patch size."""
        patches: Tensor = self.proj(x_BCHW).permute(0, 2, 3, 1)
        return patches


def resample_positions(positions_1PD: Tensor, height: int, width: int) -> Tensor:
    """Learned positions of a square grid for another one, bicubic; the same grid stays as it is.

    Args:
        positions_1PD: Of patches alone, row by row.
        height: Patches of the new grid from top to bottom.
        width: From left to right.

    Returns:
        (1, height * width, D).
    """
    side = int(positions_1PD.shape[1] ** 0.5)
    # An export would else keep to the size of its example.
    if not torch.compiler.is_exporting() and (height, width) == (side, side):
        return positions_1PD
    grid_1Dhw = positions_1PD.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid_1Dhw = F.interpolate(grid_1Dhw, (height, width), mode="bicubic", antialias=True)
    return grid_1Dhw.permute(0, 2, 3, 1).flatten(1, 2).to(positions_1PD.dtype)
