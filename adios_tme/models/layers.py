"""Parts that several models share.

Shape legend: B images, C channels, H x W pixels, T tokens of all images, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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

    def undo(self, images_BCHW: Tensor) -> Tensor:
        """From normalised images back to [0, 1]."""
        return images_BCHW * self.std + self.mean


def unit_range(images_BCHW: Tensor) -> Tensor:
    """Images as float32 in [0, 1], whether they come as that or as uint8.

    Raises:
        ValueError: If they are of another number format; the range of floats is not looked at.
    """
    if images_BCHW.dtype == torch.uint8:
        return images_BCHW.float() / 255
    if not images_BCHW.is_floating_point():
        raise ValueError(
            f"images are {images_BCHW.dtype}, expected torch.uint8, or floating point from 0 to 1. "
            f"Use .to(torch.uint8) where they are 0 to 255."
        )
    return images_BCHW.float()


def fit_to_side(images_BCHW: Tensor, side: int) -> Tensor:
    """Shrink or enlarge images in [0, 1] to squares by an antialiased bicubic filter.

    Args:
        images_BCHW: Floating point; returned as they are where they have that size.
        side: In pixels.
    """
    if images_BCHW.shape[-2:] == (side, side):
        return images_BCHW
    sides = [side, side]
    # The filter overshoots at edges.
    return F.interpolate(images_BCHW, sides, mode="bicubic", antialias=True).clamp(0, 1)


def check_batch(images_BCHW: Tensor) -> None:
    """Raise ValueError unless images are a batch (B, 3, H, W); nothing but the shape is read."""
    shape = tuple(images_BCHW.shape)
    if len(shape) == 4 and shape[1] == 3:
        return
    advice = "Give a batch of RGB images."
    if len(shape) == 3 and 3 in (shape[0], shape[2]):
        advice = "Add a batch axis: images[None]."
    if shape[-1:] == (3,):
        advice = "Put the channels first: images.movedim(-1, -3)."
    raise ValueError(f"images are {shape}, expected (B, 3, H, W). {advice}")


def swiglu_width(embed_dim: int) -> int:
    """Hidden width of the SwiGLU MLP: two thirds of 4D, rounded up to a multiple of eight."""
    return (embed_dim * 4 * 2 // 3 + 7) // 8 * 8


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al. 2021)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def after(self, linear: nn.Linear, x_TD: Tensor) -> Tensor:
        """Scale what a linear layer makes of tokens (T, D).

        The factor goes into the layer's weights, of which there are fewer than tokens: no pass over
        the tokens, and nothing to keep for the backward pass.
        """
        return F.linear(x_TD, linear.weight * self.gamma[:, None], linear.bias * self.gamma)


class PackedAttention(nn.Module):
    """Multi-head self-attention with timm's weights (``qkv``, ``proj``), over packed images.

    What comes out has not been through ``proj`` yet.
    """

    def __init__(self, dim: int, num_heads: int, backend: Backend) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.backend = backend
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_TD: Tensor, packing: Packing) -> Tensor:
        """Attend within each image."""
        q, k, v = self.qkv(x_TD).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        return attention(q, k, v, packing, packing, self.backend).flatten(1)

    def first_tokens(self, x_TD: Tensor, packing: Packing) -> Tensor:
        """The same, for the first token of each image alone."""
        dim = x_TD.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        heads = (self.num_heads, -1)
        q = F.linear(packing.first_rows(x_TD), weight[:dim], bias[:dim]).unflatten(-1, heads)
        kv = F.linear(x_TD, weight[dim:], bias[dim:])
        k, v = kv.unflatten(-1, (2, *heads)).unbind(1)
        return attention(q, k, v, packing.first_tokens(), packing, self.backend).flatten(1)

    def first_weights(self, x_BTD: Tensor) -> Tensor:
        """How much the first token of each image attends to all of its tokens, by each head.

        Back ends never hold these weights, so they are computed in full here.

        Returns:
            (B, heads, T) float32, adding up to one over T.
        """
        q_BTHE, k_BTHE, _ = self.qkv(x_BTD).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        scale = q_BTHE.shape[-1] ** -0.5
        scores_BHT = torch.einsum("bhe,bthe->bht", q_BTHE[:, 0] * scale, k_BTHE)
        return scores_BHT.float().softmax(dim=-1)


class Kept(NamedTuple):
    """Factors (n,) of each image on the branches of a block: 0 where it skips one, else above 1."""

    attended: Tensor
    transformed: Tensor


class SwiGLUMLP(nn.Module):
    """The two layers around `swiglu`, by the names that they have in timm; a block calls them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * swiglu_width(dim))
        self.fc2 = nn.Linear(swiglu_width(dim), dim)

    def open_gate(self) -> None:
        """First values of the half that is gated: what passes is the gate's ``silu`` alone."""
        half = self.fc2.in_features
        nn.init.ones_(self.fc1.bias[half:])
        nn.init.normal_(self.fc1.weight[half:], std=1e-6)


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
        self.mlp = SwiGLUMLP(dim)
        self.ls2 = LayerScale(dim, layer_scale)

    def draw_kept(self, x_TD: Tensor, packing: Packing) -> Kept | None:
        """Draw which images take each branch; None if all do, without a factor.

        It stands outside `forward`, whose compiled form holds no rate and no random numbers: all
        blocks share it, and it gives the numbers of the plain one.
        """
        if not self.training or self.drop_path == 0:
            return None
        attended, transformed = (
            x_TD.new_empty(packing.num_images).bernoulli_(1 - self.drop_path) / (1 - self.drop_path)
            for _ in range(2)
        )
        return Kept(attended, transformed)

    def forward(
        self, x_TD: Tensor, packing: Packing, kept: Kept | None = None, first_only: bool = False
    ) -> Tensor:
        """Update all tokens, or the first of each image while the others are only read.

        Args:
            x_TD: Tokens of all images.
            packing: Where each image stands.
            kept: Stochastic depth, as `draw_kept` gives it.
            first_only: Return the first token of each image alone.
        """
        attend = self.attn.first_tokens if first_only else self.attn
        branch_TD = self.ls1.after(self.attn.proj, attend(self.norm1(x_TD), packing))
        if first_only:
            x_TD, packing = packing.first_rows(x_TD), packing.first_tokens()
        x_TD = _add(x_TD, branch_TD, packing, kept and kept.attended)
        branch_TD = self.ls2.after(self.mlp.fc2, swiglu(self.mlp.fc1(self.norm2(x_TD))))
        return _add(x_TD, branch_TD, packing, kept and kept.transformed)


def _add(x_TD: Tensor, branch_TD: Tensor, packing: Packing, kept: Tensor | None) -> Tensor:
    """Add a branch, times the factor (n,) of each image where there are some."""
    if kept is None:
        return x_TD + branch_TD
    runs = zip(kept.split([count for count, _ in packing.runs]), packing.runs, strict=True)
    per_token = [factor[:, None].expand(-1, length).flatten() for factor, (_, length) in runs]
    return torch.addcmul(x_TD, branch_TD, torch.cat(per_token)[:, None])


@torch.no_grad()
def draw_normal(weight: Tensor, std: float = 0.02) -> None:
    """First values of a layer: normal, by the inverse of its distribution, and never beyond 2."""
    weight.uniform_(-1, 1).erfinv_().mul_(std * math.sqrt(2)).clamp_(-2, 2)


def recomputed(function: Callable[..., Tensor], *inputs: object, when: bool) -> Tensor:
    """Call a part of a network; when asked, keep only its inputs and call it again going back."""
    if when and torch.is_grad_enabled():
        result: Tensor = checkpoint(function, *inputs, use_reentrant=False)
        return result
    return function(*inputs)


def swiglu(both_TH: Tensor) -> Tensor:
    """``silu(first half) * second half`` of each row (Shazeer 2020, arXiv:2002.05202).

    Keeps its input alone for the backward pass, which writes both halves of the gradient in place.
    """
    if torch.compiler.is_compiling():  # the compiler finds the same by itself
        gate, value = both_TH.chunk(2, dim=-1)
        return F.silu(gate) * value
    gated: Tensor = _SwiGLU.apply(both_TH)
    return gated


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both_TH: Tensor) -> Tensor:
        ctx.save_for_backward(both_TH)
        gate, value = both_TH.chunk(2, dim=-1)
        return F.silu(gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        (both_TH,) = ctx.saved_tensors
        gate, value = both_TH.chunk(2, dim=-1)
        to_both = torch.empty_like(both_TH)
        to_gate, to_value = to_both.chunk(2, dim=-1)
        torch.ops.aten.silu_backward(grad * value, gate, grad_input=to_gate)
        torch.mul(F.silu(gate), grad, out=to_value)
        return to_both


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
