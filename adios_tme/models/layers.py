"""Parts that several models share.

Shape legend: B images, C channels, H x W pixels, T tokens of all images, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.mlp import GluMlp
from torch import Tensor, nn

from adios_tme.models.attention import Backend, Packing, attention


class Normalise(nn.Module):
    """From pixels to the networks' input: scale to [0, 1], subtract the mean, divide by the std.

    Args:
        mean: Of the three channels, 0 to 1.
        std: Of the three channels, 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Normalise uint8 or [0, 1] images (B, 3, H, W) to float32."""
        return (unit_range(images_BCHW) - self.mean) / self.std


def unit_range(images_BCHW: Tensor) -> Tensor:
    """Images as float32 in [0, 1], whether they come as that or as uint8."""
    if images_BCHW.dtype == torch.uint8:
        return images_BCHW.float() / 255
    return images_BCHW.float()


def swiglu_width(embed_dim: int) -> int:
    """Hidden width of the SwiGLU MLP: two thirds of 4D, rounded up to a multiple of eight."""
    return (embed_dim * 4 * 2 // 3 + 7) // 8 * 8


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al. 2021)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x_TD: Tensor) -> Tensor:
        """Scale tokens (T, D)."""
        return x_TD * self.gamma


class PackedAttention(nn.Module):
    """Multi-head self-attention with timm's weights (``qkv``, ``proj``), over packed images."""

    def __init__(self, dim: int, num_heads: int, backend: Backend) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.backend = backend
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_TD: Tensor, packing: Packing) -> Tensor:
        """Attend within each image."""
        q, k, v = self.qkv(x_TD).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        out: Tensor = attention(q, k, v, packing, packing, self.backend)
        return self._project(out)

    def first_tokens(self, x_TD: Tensor, first: Tensor, packing: Packing) -> Tensor:
        """The same, for the first token of each image alone.

        Args:
            x_TD: All tokens.
            first: Rows of the first tokens.
            packing: The images.
        """
        dim = x_TD.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        heads = (self.num_heads, -1)
        q = nn.functional.linear(x_TD[first], weight[:dim], bias[:dim]).unflatten(-1, heads)
        kv = nn.functional.linear(x_TD, weight[dim:], bias[dim:])
        k, v = kv.unflatten(-1, (2, *heads)).unbind(1)
        return self._project(attention(q, k, v, packing.first_tokens(), packing, self.backend))

    def _project(self, out_THE: Tensor) -> Tensor:
        projected: Tensor = self.proj(out_THE.flatten(1))
        return projected


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale, SwiGLU and stochastic depth per image."""

    def __init__(
        self, dim: int, num_heads: int, drop_path: float, layer_scale: float, backend: Backend
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PackedAttention(dim, num_heads, backend)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = GluMlp(dim, 2 * swiglu_width(dim), act_layer=nn.SiLU, gate_last=False)
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(self, x_TD: Tensor, packing: Packing) -> Tensor:
        """Update all tokens."""
        x_TD = x_TD + self._drop(self.ls1(self.attn(self.norm1(x_TD), packing)), packing)
        return x_TD + self._drop(self.ls2(self.mlp(self.norm2(x_TD))), packing)

    def first_tokens(self, x_TD: Tensor, first: Tensor, packing: Packing) -> Tensor:
        """Update the first token of each image; the others are read and not written."""
        alone = packing.first_tokens()
        attended = self.attn.first_tokens(self.norm1(x_TD), first, packing)
        x_BD = x_TD[first] + self._drop(self.ls1(attended), alone)
        return x_BD + self._drop(self.ls2(self.mlp(self.norm2(x_BD))), alone)

    def _drop(self, branch_TD: Tensor, packing: Packing) -> Tensor:
        """Leave the branch out for a random share of the images, and scale it up for the rest."""
        if not self.training or self.drop_path == 0:
            return branch_TD
        kept = branch_TD.new_empty(packing.num_images).bernoulli_(1 - self.drop_path)
        kept = kept / (1 - self.drop_path)
        runs = zip(kept.split([count for count, _ in packing.runs]), packing.runs, strict=True)
        per_token = [keep[:, None].expand(-1, length).flatten() for keep, (_, length) in runs]
        return branch_TD * torch.cat(per_token)[:, None]


def conv_block(in_channels: int, out_channels: int, norm: str = "gn") -> nn.Sequential:
    """3x3 convolution, normalisation (``gn`` of eight groups, ``in`` or ``no``) and ReLU.

    Raises:
        ValueError: If the norm is unknown.
    """
    norms: dict[str, list[nn.Module]] = {
        "gn": [nn.GroupNorm(8, out_channels)],
        "in": [nn.InstanceNorm2d(out_channels, affine=True)],
        "no": [],
    }
    if norm not in norms:
        raise ValueError(f"norm {norm!r} is unknown. Use one of {', '.join(norms)}.")
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=norm == "no")
    return nn.Sequential(conv, *norms[norm], nn.ReLU(inplace=True))
