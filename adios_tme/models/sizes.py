"""Sizes of networks as plain values, and networks from them: what exported folders state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from adios_tme.models.layers import Block
from adios_tme.models.mask_models.unet import AdiosUNet
from adios_tme.models.mask_models.vit_unet import DECODER_WIDTH, ViTUNet
from adios_tme.models.vit import VisionTransformer


def encoder_sizes(encoder: VisionTransformer) -> dict[str, int]:
    """What `VisionTransformer` takes to be built with these weights."""
    block = encoder.blocks[0]
    assert isinstance(block, Block)
    return {
        "img_size": encoder.patch_embed.img_size,
        "patch_size": encoder.patch_embed.patch_size,
        "embed_dim": encoder.embed_dim,
        "depth": len(encoder.blocks),
        "num_heads": block.attn.num_heads,
        "num_register_tokens": encoder.num_prefix_tokens - 1,
    }


def mask_network_sizes(network: nn.Module) -> dict[str, Any]:
    """What `mask_network_of` takes to build a mask network like this one.

    Raises:
        ValueError: If it is none of ours.
    """
    if isinstance(network, AdiosUNet):
        return {
            "mask_model_type": "adios",
            "num_masks": network.final_conv.out_channels,
            "sizes": {
                "img_size": network.img_size,
                "fbase": network.fbase,
                "norm": network.norm,
            },
        }
    if isinstance(network, ViTUNet):
        return {
            "mask_model_type": "vit_unet",
            "num_masks": network.head.out_channels,
            "decoder_width": network.decoder_width,
            "sizes": encoder_sizes(network.encoder),
        }
    raise ValueError(
        f"the mask network is a {type(network).__name__}, which no folder can describe. "
        f"Save its weights yourself, or use AdiosUNet or ViTUNet."
    )


def mask_network_of(settings: Mapping[str, Any]) -> AdiosUNet | ViTUNet:
    """A mask network of given sizes; its weights are yet to be loaded.

    Raises:
        KeyError: If something is missing.
        TypeError: If a size is of no use to the network.
        ValueError: If there is no such network.
    """
    kind, num_masks, sizes = (settings[name] for name in ("mask_model_type", "num_masks", "sizes"))
    if kind == "adios":
        return AdiosUNet(num_masks=num_masks, **sizes)
    if kind == "vit_unet":
        encoder = VisionTransformer(**sizes)
        width = settings.get("decoder_width", DECODER_WIDTH)  # the first folders do not state it
        return ViTUNet(encoder, sizes["patch_size"], num_masks, decoder_width=width)
    raise ValueError(f"mask_model_type {kind!r}")
