"""The encoder: a ViT whose weights stock timm loads under the same names.

It is timm's ``vit_giant_patch14_reg4_dinov2`` with other sizes (Dosovitskiy et al. 2021,
arXiv:2010.11929; registers: Darcet et al. 2023, arXiv:2309.16588; SwiGLU: Shazeer 2020,
arXiv:2002.05202).

Shape legend: B images, C channels, H x W pixels, h x w patches, P = h*w, R registers, D width,
T tokens of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args, overload

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from adios_tme.models.attention import Backend, Packing
from adios_tme.models.images import AnyImages, take_images
from adios_tme.models.layers import (
    Block,
    Normalise,
    check_batch,
    draw_normal,
    fit_to_side,
    recomputed,
)
from adios_tme.models.mask_models.windows import mirror_to
from adios_tme.models.positions import PatchEmbed, resample_positions

LAYER_SCALE = 0.1

Fit: TypeAlias = Literal["resize", "pad"]
"""How images of other sizes than that of training are made to fit."""


class VisionTransformer(nn.Module):
    """ViT encoder with registers, SwiGLU, LayerScale and stochastic depth.

    Args:
        img_size: Side in pixels at which the positions are learned; other sizes are interpolated.
        patch_size: Side of a patch in pixels.
        embed_dim: Width.
        depth: Blocks.
        num_heads: Attention heads of a block.
        num_register_tokens: Registers.
        drop_path_rate: Stochastic depth of the last block; earlier ones less, linearly.
        attention: Back end; see `adios_tme.models.attention`.
        grad_checkpointing: Recompute the blocks in the backward pass.

    Example:
        >>> import torch
        >>> from adios_tme import VisionTransformer
        >>> encoder = VisionTransformer(32, patch_size=8, embed_dim=64, depth=4, num_heads=2)
        >>> tokens = encoder(torch.randn(2, 3, 32, 32))  # 1 class token, 4 registers, 16 patches
        >>> tokens.shape
        torch.Size([2, 21, 64])
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        num_register_tokens: int = 4,
        drop_path_rate: float = 0.0,
        attention: Backend = "sdpa",
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.attention = attention
        self.grad_checkpointing = grad_checkpointing
        self.num_prefix_tokens = 1 + num_register_tokens
        self.patch_embed = PatchEmbed(img_size, patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.reg_token = (
            nn.Parameter(torch.empty(1, num_register_tokens, embed_dim))
            if num_register_tokens
            else None
        )
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches, embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, rate, LAYER_SCALE, attention)
            for rate in _rising(drop_path_rate, depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.normalise: Normalise | None = None
        """That of the images it was trained on, for `encode`; no part of the weights."""
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw_normal(module.weight)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.mlp.open_gate()
        draw_normal(self.pos_embed)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=1e-6)

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: Sequence[Tensor]) -> list[Tensor]: ...

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Encode normalised images.

        Args:
            x: (B, 3, H, W), or several such batches of different sizes, encoded as one sequence.

        Returns:
            Tokens (B, 1+R+P, D) after the last norm, class token first; a list of them for a list.

        Raises:
            ValueError: If images are no such batch, whole numbers, or not a multiple of the patch.

        Example:
            >>> import torch
            >>> from adios_tme import VisionTransformer
            >>> encoder = VisionTransformer(32, patch_size=8, embed_dim=64, depth=4, num_heads=2)
            >>> views = [torch.randn(2, 3, 32, 32), torch.randn(6, 3, 16, 16)]
            >>> [tokens.shape for tokens in encoder(views)]
            [torch.Size([2, 21, 64]), torch.Size([6, 9, 64])]
        """
        batches = [x] if isinstance(x, Tensor) else x
        tokens_TD, packing = self._embed(batches)
        for block in self.blocks:
            tokens_TD = self._run(block, tokens_TD, packing)
        tokens_TD = self.norm(tokens_TD)
        sizes = [batch.shape[0] for batch in batches]  # len() would fix the batch of an export
        lengths = [self._num_tokens(batch) for batch in batches]
        runs = tokens_TD.split([n * length for n, length in zip(sizes, lengths, strict=True)])
        outputs = [run.unflatten(0, (n, -1)) for run, n in zip(runs, sizes, strict=True)]
        return outputs[0] if isinstance(x, Tensor) else outputs

    @overload
    def encode(self, images: Tensor, *, fit: Fit = ...) -> Tensor: ...

    @overload
    def encode(self, images: NDArray[Any] | Image.Image, *, fit: Fit = ...) -> NDArray[Any]: ...

    @torch.no_grad()
    def encode(self, images: AnyImages, *, fit: Fit = "resize") -> Tensor | NDArray[Any]:
        """Features of images as they are read: normalised here, of any size.

        `load_encoder` gives an encoder that knows its normalisation; another one is given it by
        ``encoder.normalise = Normalise(mean, std)``. `forward` takes images that are normalised.

        Args:
            images: RGB, one image or a batch: a torch tensor (3, H, W) or (B, 3, H, W), a NumPy
                array (H, W, 3) or (B, H, W, 3), or a Pillow image; uint8, or floating point from 0
                to 1.
            fit: ``resize`` brings images to the size of training, whatever their shape (bicubic),
                as ``adios-tme embed`` and an ONNX file do. ``pad`` keeps their scale: they are
                extended below and on the right, mirrored, to whole patches of the model, and the
                learned positions are interpolated; the time grows with the square of their area.

        Returns:
            Class tokens (D,) or (B, D), float32. A tensor on the images' device for a tensor, else
            an array.

        Raises:
            ValueError: If images are none of these, of another range, or not finite; or the
                encoder knows no normalisation.

        Example:
            >>> import numpy as np
            >>> from adios_tme import load_encoder
            >>> load_encoder(run).encode(np.zeros((2, 50, 70, 3), dtype=np.uint8)).shape
            (2, 32)
        """
        if fit not in get_args(Fit):
            raise ValueError(f"fit={fit!r} is unknown. Use one of {', '.join(get_args(Fit))}.")
        if self.normalise is None:
            raise ValueError(
                "the encoder knows no normalisation. Load it with adios_tme.load_encoder, or set "
                "encoder.normalise = Normalise(mean, std)."
            )
        given = take_images(images)
        given.check_range()
        pixels = given.unit().to(self.cls_token.device)
        if fit == "resize":
            side = self.patch_embed.img_size
            pixels = fit_to_side(pixels, side)
        else:
            patch = self.patch_embed.patch_size
            height, width = (-(-length // patch) * patch for length in pixels.shape[-2:])
            pixels = mirror_to(pixels, height, width)
        normalised = self.normalise(pixels).to(self.cls_token.dtype)
        return given.results_like(self.class_tokens([normalised]).float())

    def class_tokens(self, batches: Sequence[Tensor]) -> Tensor:
        """The class tokens of all images, after the last norm.

        The same numbers as `forward`; the last block's queries, projection and MLP are computed
        for the class tokens alone, since nobody reads the others.

        Args:
            batches: Normalised images (B_i, 3, H_i, W_i).

        Returns:
            (sum of B_i, D) in order.

        Example:
            >>> import torch
            >>> from adios_tme import VisionTransformer
            >>> encoder = VisionTransformer(32, patch_size=8, embed_dim=64, depth=4, num_heads=2)
            >>> encoder.class_tokens([torch.randn(2, 3, 32, 32), torch.randn(6, 3, 16, 16)]).shape
            torch.Size([8, 64])
        """
        tokens_TD, packing = self._embed(batches)
        *earlier, last = self.blocks
        for block in earlier:
            tokens_TD = self._run(block, tokens_TD, packing)
        classes_BD = self._run(last, tokens_TD, packing, first_only=True)
        normed: Tensor = self.norm(classes_BD)
        return normed

    def patch_map(self, x_BCHW: Tensor) -> Tensor:
        """Features of the patches after the last norm, as a map (B, D, h, w)."""
        tokens_BTD: Tensor = self(x_BCHW)
        return self._as_map(tokens_BTD, x_BCHW)

    def class_attention(self, x_BCHW: Tensor) -> Tensor:
        """How much the class token attends to each patch in the last block, by each head.

        Returns:
            (B, heads, h, w) float32; with the weights of class token and registers, which are left
            out, they add up to one.
        """
        tokens_TD, packing = self._embed([x_BCHW])
        *earlier, last = self.blocks
        for block in earlier:
            tokens_TD = self._run(block, tokens_TD, packing)
        assert isinstance(last, Block)
        normed_BTD = last.norm1(tokens_TD).unflatten(0, (x_BCHW.shape[0], -1))
        weights_BHP = last.attn.first_weights(normed_BTD)[..., self.num_prefix_tokens :]
        weights_BHhw: Tensor = weights_BHP.unflatten(2, self._grid(x_BCHW))
        return weights_BHhw

    def _as_map(self, tokens_BTD: Tensor, x_BCHW: Tensor) -> Tensor:
        patches_BPD = tokens_BTD[:, self.num_prefix_tokens :]
        features_BDhw: Tensor = patches_BPD.transpose(1, 2).unflatten(2, self._grid(x_BCHW))
        return features_BDhw

    def forward_intermediates(self, x_BCHW: Tensor) -> list[Tensor]:
        """Patch features at a quarter, half, three quarters and the whole of the depth.

        Returns:
            Four normed maps (B, D, h, w).

        Example:
            >>> import torch
            >>> from adios_tme import VisionTransformer
            >>> encoder = VisionTransformer(32, patch_size=8, embed_dim=64, depth=4, num_heads=2)
            >>> [tuple(z.shape) for z in encoder.forward_intermediates(torch.randn(1, 3, 32, 32))]
            [(1, 64, 4, 4), (1, 64, 4, 4), (1, 64, 4, 4), (1, 64, 4, 4)]
        """
        tokens_TD, packing = self._embed([x_BCHW])
        depth = len(self.blocks)
        stops = {-(-depth * quarter // 4) for quarter in (1, 2, 3, 4)}
        maps = []
        for done, block in enumerate(self.blocks, start=1):
            tokens_TD = self._run(block, tokens_TD, packing)
            if done in stops:
                tokens_BTD = self.norm(tokens_TD).unflatten(0, (x_BCHW.shape[0], -1))
                maps.append(self._as_map(tokens_BTD, x_BCHW))
        return maps

    def _embed(self, batches: Sequence[Tensor]) -> tuple[Tensor, Packing]:
        """Tokens of all batches one after the other; batches of one size are embedded together."""
        for batch in batches:
            self._check(batch)
        runs, parts = [], []
        for joined in _join_equal_sizes(batches):
            tokens_BTD = self._tokens(joined)
            runs.append((tokens_BTD.shape[0], tokens_BTD.shape[1]))
            parts.append(tokens_BTD.flatten(0, 1))
        return torch.cat(parts) if len(parts) > 1 else parts[0], Packing(tuple(runs))

    def _check(self, x_BCHW: Tensor) -> None:
        """Raise ValueError if images cannot be encoded; only shape and number format are read."""
        check_batch(x_BCHW)
        if not x_BCHW.is_floating_point():
            raise ValueError(
                f"images are {x_BCHW.dtype}, expected normalised floating point. Use "
                f"encoder.encode(images), or (images / 255 - mean) / std with the mean and std of "
                f"the run's settings."
            )
        own = self.cls_token.dtype
        if x_BCHW.dtype != own and (x_BCHW.dtype == torch.float64 or not _is_autocast(x_BCHW)):
            raise ValueError(
                f"images are {x_BCHW.dtype}, the weights {own}. Use images.to({own}), or autocast."
            )
        height, width = x_BCHW.shape[-2:]
        side = self.patch_embed.patch_size
        if height % side or width % side:
            raise ValueError(
                f"images are {width} x {height} px, expected multiples of the patch size {side}. "
                f"Crop or resize them."
            )

    def _tokens(self, x_BCHW: Tensor) -> Tensor:
        patches_BhwD = self.patch_embed(x_BCHW)
        num_images, height, width, _ = patches_BhwD.shape
        position = resample_positions(self.pos_embed, height, width)
        prefix = [self.cls_token] if self.reg_token is None else [self.cls_token, self.reg_token]
        expanded = [token.expand(num_images, -1, -1) for token in prefix]
        return torch.cat([*expanded, patches_BhwD.flatten(1, 2) + position], dim=1)

    def _grid(self, x_BCHW: Tensor) -> tuple[int, int]:
        height, width = x_BCHW.shape[-2:]
        side = self.patch_embed.patch_size
        return height // side, width // side

    def _num_tokens(self, x_BCHW: Tensor) -> int:
        height, width = self._grid(x_BCHW)
        return self.num_prefix_tokens + height * width

    def _run(
        self, block: nn.Module, tokens_TD: Tensor, packing: Packing, *, first_only: bool = False
    ) -> Tensor:
        assert isinstance(block, Block)
        again = self.grad_checkpointing and self.training
        kept = block.draw_kept(tokens_TD, packing)
        return recomputed(block, tokens_TD, packing, kept, first_only, when=again)


def _is_autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _rising(last: float, count: int) -> list[float]:
    """Evenly spaced numbers from zero to the last."""
    return [last * place / max(1, count - 1) for place in range(count)]


def _join_equal_sizes(batches: Sequence[Tensor]) -> list[Tensor]:
    """Concatenate neighbours of one size, so that they are embedded and attended to together."""
    groups: list[list[Tensor]] = []
    for batch in batches:
        if groups and groups[-1][0].shape[1:] == batch.shape[1:]:
            groups[-1].append(batch)
        else:
            groups.append([batch])
    return [torch.cat(group) if len(group) > 1 else group[0] for group in groups]
