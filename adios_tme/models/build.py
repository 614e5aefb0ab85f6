"""From settings to networks on a device."""

from __future__ import annotations

import logging

import torch

from adios_tme.config.model import HEAD_WIDTH, MaskConfig, StudentConfig
from adios_tme.config.run import ComputeConfig
from adios_tme.models.attention import resolve_backend
from adios_tme.models.heads import TMEHead
from adios_tme.models.student import Student
from adios_tme.models.unet import AdiosUNet
from adios_tme.models.vit import VisionTransformer
from adios_tme.models.vit_unet import ViTUNet

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

#: Compiled forms that blocks may have; a run needs about a dozen.
NUM_FORMS = 64

logger = logging.getLogger(__name__)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Number format of the networks: bf16 on CUDA and fp32 on a CPU unless named."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" else "fp32"
    return PRECISIONS[name]


def build_student(
    student: StudentConfig, img_size: int, compute: ComputeConfig, device: torch.device
) -> Student:
    """The encoder with its head, first weights drawn from torch's generator.

    Raises:
        ConfigError: If the attention back end that is asked for does not work here.
    """
    dtype = choose_precision(compute.precision, device)
    head_width = student.embed_dim // student.num_heads
    backend, reason = resolve_backend(compute.attention, device, dtype, head_width)
    logger.info("Attention of the student by %s (%s)", backend, reason)
    encoder = VisionTransformer(
        img_size=img_size,
        patch_size=student.patch_size,
        embed_dim=student.embed_dim,
        depth=student.depth,
        num_heads=student.num_heads,
        num_register_tokens=student.num_register_tokens,
        drop_path_rate=student.drop_path_rate,
        attention=backend,
        grad_checkpointing=compute.grad_checkpointing,
    )
    head = TMEHead(
        student.embed_dim, student.tme_hidden_dim, student.tme_output_dim, student.tme_layers
    )
    network = Student(encoder, head)
    _compile_blocks(encoder, compute)
    return network.to(device)


def build_mask_model(
    mask: MaskConfig,
    student: StudentConfig,
    img_size: int,
    compute: ComputeConfig,
    device: torch.device,
) -> AdiosUNet | ViTUNet:
    """The mask model; the vit_unet's encoder has the student's patches and registers.

    Raises:
        ConfigError: If the attention back end that is asked for does not work here.
    """
    if mask.mask_model_type == "adios":
        return AdiosUNet(
            img_size, mask.num_masks, grad_checkpointing=compute.mask_grad_checkpointing
        ).to(device)
    dtype = choose_precision(compute.precision, device)
    backend, _ = resolve_backend(compute.attention, device, dtype, HEAD_WIDTH)
    encoder = VisionTransformer(
        img_size=img_size,
        patch_size=student.patch_size,
        embed_dim=mask.mask_encoder_dim,
        depth=mask.mask_encoder_depth,
        num_heads=mask.mask_encoder_dim // HEAD_WIDTH,
        num_register_tokens=student.num_register_tokens,
        drop_path_rate=mask.mask_dropout,
        attention=backend,
        grad_checkpointing=compute.mask_grad_checkpointing,
    )
    _compile_blocks(encoder, compute)
    return ViTUNet(
        encoder,
        student.patch_size,
        mask.num_masks,
        mask.mask_dropout,
        mask.freeze_mask_encoder,
        compute.mask_grad_checkpointing,
    ).to(device)


def _compile_blocks(encoder: VisionTransformer, compute: ComputeConfig) -> None:
    """Compile the blocks in place; their weights keep their names.

    Convolutions and the head stay as they are: their time is that of the library's products.
    """
    if compute.compile == "on":
        # Torch keeps one list of compiled forms for the blocks of both networks, and calls blocks
        # plainly once it is full: a form for each shape, half of the step and kind of block.
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, NUM_FORMS)
        for block in encoder.blocks:
            block.compile(dynamic=False)
