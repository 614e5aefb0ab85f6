"""A mask model with a ViT encoder and a decoder in the manner of CellViT.

Hoerst et al. 2024, arXiv:2306.15350 (after UNETR, Hatamizadeh et al. 2022): patch features from
four depths are brought up by transposed convolutions and joined on the way to full resolution.

Shape legend: B images, N masks, C channels, H x W pixels, h x w patches, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adios_tme.models.layers import conv_block, recomputed
from adios_tme.models.vit import VisionTransformer
from adios_tme.models.weights import Weights, take_fitting

#: Doublings of the resolution that each leave half of the channels; further ones keep theirs.
NUM_HALVINGS = 3
#: Channels of the decoder after its first doubling, unless another number is asked for.
DECODER_WIDTH = 256


class ViTUNet(nn.Module):
    """ViT encoder, one decoder for all masks, softmax over them.

    The decoder doubles the patch grid until it reaches the pixels (four times for patches of 16).
    On the way it joins the features of three quarters of the depth after one doubling, of half
    after two, of a quarter after three, and the image itself at the end.

    Args:
        encoder: Gives the features; its patch size sets the number of doublings.
        patch_size: Side of the encoder's patches in pixels.
        num_masks: Masks per image.
        dropout: In the decoder.
        freeze_encoder: Keep the encoder's weights as they are, and evaluate it without dropout.
        decoder_width: Channels of the decoder after its first doubling, a multiple of 64; half as
            many after each of the next three.
        grad_checkpointing: Recompute the decoder in the backward pass; the encoder has its own.

    Example:
        >>> import torch
        >>> from adios_tme import ViTUNet, VisionTransformer
        >>> encoder = VisionTransformer(32, patch_size=8, embed_dim=64, depth=4, num_heads=2)
        >>> network = ViTUNet(encoder, patch_size=8, num_masks=4, decoder_width=64)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 4, 32, 32])
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        patch_size: int = 16,
        num_masks: int = 3,
        dropout: float = 0.0,
        freeze_encoder: bool = False,
        grad_checkpointing: bool = False,
        decoder_width: int = DECODER_WIDTH,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = grad_checkpointing
        self.encoder = encoder
        self.decoder_width = decoder_width
        self.dropout = dropout
        self.freeze_encoder = freeze_encoder
        num_doublings = max(1, round(math.log2(patch_size)))
        widths = [decoder_width >> min(level, NUM_HALVINGS) for level in range(num_doublings)]
        # The level at which the features of 3/4, 1/2 and 1/4 of the depth join.
        self._joins = [min(level, num_doublings) for level in (1, 2, 3)]
        self.skips = nn.ModuleList(
            _rise(encoder.embed_dim, widths[:level], dropout) for level in self._joins
        )
        self.image_skip = conv_block(3, widths[-1])
        self.doublings = nn.ModuleList(
            nn.ConvTranspose2d(narrow, wide, 2, stride=2)
            for narrow, wide in zip([encoder.embed_dim, *widths], widths, strict=False)
        )
        self.fusions = nn.ModuleList(
            nn.Sequential(conv_block(self._num_joined(level) * wide, wide), conv_block(wide, wide))
            for level, wide in enumerate(widths, start=1)
        )
        self.head = nn.Conv2d(widths[-1], num_masks, 1)
        self.encoder.requires_grad_(not freeze_encoder)

    def train(self, mode: bool = True) -> ViTUNet:
        """Set training mode; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Draw masks on normalised images.

        Returns:
            (B, N, H, W) float32; they add up to one over N.

        Example:
            >>> import torch
            >>> from adios_tme import ViTUNet, VisionTransformer
            >>> encoder = VisionTransformer(32, patch_size=8, embed_dim=64, depth=4, num_heads=2)
            >>> network = ViTUNet(encoder, patch_size=8, decoder_width=64).eval()
            >>> masks = network(torch.randn(1, 3, 64, 64))  # of another size, too
            >>> masks.shape, torch.allclose(masks.sum(dim=1), torch.ones(1, 64, 64))
            (torch.Size([1, 3, 64, 64]), True)
        """
        *lower, features = self.encoder.forward_intermediates(x_BCHW)
        risen = [self._run(rise, z) for rise, z in zip(self.skips, reversed(lower), strict=True)]
        for level, double in enumerate(self.doublings, start=1):
            features = double(features)
            joined = [skip for skip, at in zip(risen, self._joins, strict=True) if at == level]
            if level == len(self.doublings):
                image = x_BCHW
                if image.shape[-2:] != features.shape[-2:]:
                    image = F.interpolate(image, features.shape[-2:], mode="bilinear")
                joined.append(self._run(self.image_skip, image))
            features = self._run(self.fusions[level - 1], torch.cat([features, *joined], dim=1))
        logits = self.head(features)
        if logits.shape[-2:] != x_BCHW.shape[-2:]:
            logits = F.interpolate(logits, x_BCHW.shape[-2:], mode="bilinear")
        masks: Tensor = logits.float().softmax(dim=1)
        return masks

    def load_encoder(self, weights: Weights) -> list[str]:
        """Start the encoder from a student's, its positions resampled to this image size.

        Args:
            weights: State of a `VisionTransformer`.

        Returns:
            Why each tensor that did not fit was not used, or keeps its first values.

        Example:
            >>> from adios_tme import ViTUNet, VisionTransformer, load_encoder
            >>> encoder = VisionTransformer(64, patch_size=8, embed_dim=32, depth=2, num_heads=2)
            >>> network = ViTUNet(encoder, patch_size=8, decoder_width=64)
            >>> network.load_encoder(load_encoder(run).state_dict())  # all of it fits
            []
        """
        return take_fitting(self.encoder, weights, "encoder", "the student").misfits

    def _run(self, part: nn.Module, x_BCHW: Tensor) -> Tensor:
        return recomputed(part, x_BCHW, when=self.grad_checkpointing and self.training)

    def _num_joined(self, level: int) -> int:
        return 1 + self._joins.count(level) + (level == len(self.doublings))


def _rise(dim: int, widths: list[int], dropout: float) -> nn.Sequential:
    """Bring patch features up by one doubling for each width."""
    layers: list[nn.Module] = []
    for narrow, wide in zip([dim, *widths], widths, strict=False):
        layers += [
            nn.ConvTranspose2d(narrow, wide, 2, stride=2),
            conv_block(wide, wide),
            nn.Dropout(dropout),
        ]
    return nn.Sequential(*layers)
