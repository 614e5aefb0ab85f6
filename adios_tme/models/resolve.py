"""What ``auto`` and absent settings come to on one device, decided once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from adios_tme.config.model import HEAD_WIDTH, MaskConfig, is_timm
from adios_tme.config.train import TrainConfig
from adios_tme.models.attention import Backend, resolve_backend

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Resolved:
    """Choices that the parts of a run take as they are."""

    device: torch.device
    dtype: torch.dtype
    """Number format of the networks' arithmetic."""
    attention: Backend
    """Of the student."""
    attention_reason: str
    """In words, why it was taken."""
    mask_attention: Backend
    """Of the vit_unet's encoder."""
    mask_num_heads: int
    """Of the vit_unet's encoder."""
    crop_size: int
    """Side of the student's crops in pixels."""
    shares_masks: bool
    """Whether one forward pass of the mask model serves both halves of a step."""
    compiles: bool
    """Whether the blocks of both networks are compiled."""
    grad_checkpointing: bool
    mask_grad_checkpointing: bool


def resolve(config: TrainConfig, device: torch.device) -> Resolved:
    """Decide what the settings leave open.

    Raises:
        ConfigError: If the attention back end that is asked for does not work on the device.
    """
    model, mask, compute = config.model, config.mask, config.compute
    dtype = resolve_precision(compute.precision, device)
    attention: Backend = "sdpa"
    reason = "timm's own"
    if not is_timm(model.arch):
        head_width = model.embed_dim // model.num_heads
        attention, reason = resolve_backend(compute.attention, device, dtype, head_width)
    mask_attention: Backend = "sdpa"
    if mask.mask_model_type == "vit_unet":
        mask_attention, _ = resolve_backend(compute.attention, device, dtype, HEAD_WIDTH)
    return Resolved(
        device=device,
        dtype=dtype,
        attention=attention,
        attention_reason=reason,
        mask_attention=mask_attention,
        mask_num_heads=mask.mask_encoder_dim // HEAD_WIDTH,
        crop_size=mask.crop_size or config.data.img_size,
        shares_masks=_shares_masks(mask),
        compiles=compute.compile == "on",
        grad_checkpointing=compute.grad_checkpointing,
        mask_grad_checkpointing=compute.mask_grad_checkpointing,
    )


def resolve_precision(
    name: Literal["auto", "bf16", "fp16", "fp32"], device: torch.device
) -> torch.dtype:
    """Number format of the networks: bf16 on CUDA and fp32 on a CPU unless named."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" else "fp32"
    return PRECISIONS[name]


def _shares_masks(mask: MaskConfig) -> bool:
    """As asked; else where no dropout is in play, which each half would draw for itself."""
    if mask.mask_forward != "auto":
        return mask.mask_forward == "shared"
    return mask.mask_model_type == "adios" or mask.mask_dropout == 0
