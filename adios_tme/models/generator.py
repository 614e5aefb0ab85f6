"""The mask model as others use it: pixels in, masks at the same size out.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adios_tme.models.layers import Normalise, unit_range


class MaskGenerator(nn.Module):
    """A mask network with its image size and normalisation.

    Args:
        network: Draws masks (B, N, S, S) on normalised images of side S.
        img_size: That side in pixels.
        mean: Channel means of the normalisation, 0 to 1.
        std: Channel standard deviations, 0 to 1.
    """

    def __init__(
        self, network: nn.Module, img_size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.img_size = img_size
        self.normalise = Normalise(mean, std)

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Draw masks on RGB images.

        Args:
            images_BCHW: uint8, or float in [0, 1], of any size; shrunk or enlarged to the
                network's size and the masks back.

        Returns:
            (B, N, H, W) float32 on the images' device; they add up to one over N.
        """
        size = images_BCHW.shape[-2:]
        images = unit_range(images_BCHW)
        if size != (self.img_size, self.img_size):
            side = [self.img_size, self.img_size]
            images = F.interpolate(images, side, mode="bicubic", antialias=True).clamp(0, 1)
        masks: Tensor = self.network(self.normalise(images))
        if size != masks.shape[-2:]:
            masks = F.interpolate(masks, size, mode="bilinear", antialias=True)
        return masks
