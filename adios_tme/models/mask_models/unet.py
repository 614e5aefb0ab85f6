"""The mask model of the original ADIOS: the U-Net of GENESIS (Engelcke et al. 2020).

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adios_tme.models.layers import conv_block, recomputed

BOTTLENECK_WIDTH = 128


class AdiosUNet(nn.Module):
    """U-Net with an MLP at the bottom, softmax over the masks.

    log2(img_size) - 1 levels of 3x3 convolution, norm and ReLU; nearest-neighbour halving and
    doubling between them; skips by concatenation; three linear layers on the lowest map, which
    tie the network to its image size.

    Args:
        img_size: Side of the images in pixels, 16 or more.
        num_masks: Masks per image.
        fbase: Channels of the upper levels; the lower three have twice as many.
        norm: ``gn``, ``in`` or ``no``.
        grad_checkpointing: Recompute the convolutions in the backward pass.

    Raises:
        ValueError: If the images are too small.

    Example:
        >>> import torch
        >>> from adios_tme import AdiosUNet
        >>> network = AdiosUNet(img_size=32, num_masks=4, fbase=8)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 4, 32, 32])
    """

    def __init__(
        self,
        img_size: int = 224,
        num_masks: int = 3,
        fbase: int = 32,
        norm: str = "gn",
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = grad_checkpointing
        if img_size < 16:
            raise ValueError(f"img_size={img_size} is too small for the U-Net. Use 16 or more.")
        self.img_size, self.fbase, self.norm = img_size, fbase, norm
        num_levels = int(math.log2(img_size)) - 1
        down = [fbase] * (num_levels - 3) + [2 * fbase] * 3
        up = [2 * fbase] * 2 + [fbase] * (num_levels - 2)
        below = [2 * fbase, *up[:-1]]  # what each upward block gets from the block before it
        self.down = nn.ModuleList(
            conv_block(narrow, wide, norm) for narrow, wide in zip([3, *down], down, strict=False)
        )
        self.up = nn.ModuleList(
            conv_block(low + skip, wide, norm)
            for low, skip, wide in zip(below, reversed(down), up, strict=True)
        )
        self._lowest = (2 * fbase, *[img_size >> (num_levels - 1)] * 2)
        flat = math.prod(self._lowest)
        widths = [flat, BOTTLENECK_WIDTH, BOTTLENECK_WIDTH, flat]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU(inplace=True)]
        self.mlp = nn.Sequential(*layers)
        self.final_conv = nn.Conv2d(up[-1], num_masks, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Draw masks on normalised images.

        Returns:
            (B, N, H, W) float32; they add up to one over N.

        Raises:
            ValueError: If the images have another size than the network.

        Example:
            >>> import torch
            >>> from adios_tme import AdiosUNet
            >>> masks = AdiosUNet(img_size=32, num_masks=3, fbase=8)(torch.randn(1, 3, 32, 32))
            >>> torch.allclose(masks.sum(dim=1), torch.ones(1, 32, 32))
            True
        """
        if x_BCHW.shape[-2:] != (self.img_size, self.img_size):
            raise ValueError(
                f"images of {tuple(x_BCHW.shape[-2:])} px for a U-Net of {self.img_size} px."
            )
        skips = []
        for level, block in enumerate(self.down):
            if level:
                x_BCHW = F.interpolate(x_BCHW, scale_factor=0.5, mode="nearest")
            x_BCHW = self._run(block, x_BCHW)
            skips.append(x_BCHW)
        x_BCHW = self.mlp(x_BCHW.flatten(1)).unflatten(1, self._lowest)
        for block in self.up:
            skip = skips.pop()
            if x_BCHW.shape[-2:] != skip.shape[-2:]:
                x_BCHW = F.interpolate(x_BCHW, size=skip.shape[-2:], mode="nearest")
            x_BCHW = self._run(block, torch.cat([x_BCHW, skip], dim=1))
        logits: Tensor = self.final_conv(x_BCHW)
        return logits.float().softmax(dim=1)

    def _run(self, block: nn.Module, x_BCHW: Tensor) -> Tensor:
        return recomputed(block, x_BCHW, when=self.grad_checkpointing and self.training)
