"""From settings to networks on a device."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import torch
from torch import nn

from adios_tme.config.model import TIMM, MaskConfig, StudentConfig, is_timm
from adios_tme.models.heads import TMEHead
from adios_tme.models.mask_models.unet import AdiosUNet
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.resolve import Resolved
from adios_tme.models.student import Student
from adios_tme.models.vit import VisionTransformer

if TYPE_CHECKING:
    from adios_tme.models.timm_encoder import TimmEncoder

#: Compiled forms that blocks may have; a run needs about a dozen.
NUM_FORMS = 64

logger = logging.getLogger(__name__)


def build_student(student: StudentConfig, img_size: int, resolved: Resolved) -> Student:
    """The encoder with its head, first weights drawn from torch's generator.

    Raises:
        ConfigError: If it is to be a network of timm's that there is not, or that does not fit.
    """
    encoder = (
        _timm_encoder(student, img_size, resolved)
        if is_timm(student.arch)
        else _vit(student, img_size, resolved)
    )
    head = TMEHead(
        encoder.embed_dim, student.tme_hidden_dim, student.tme_output_dim, student.tme_layers
    )
    return Student(encoder, head).to(resolved.device)


def _timm_encoder(student: StudentConfig, img_size: int, resolved: Resolved) -> TimmEncoder:
    from adios_tme.models.timm_encoder import TimmEncoder  # takes as long to load as torch

    name = student.arch.removeprefix(TIMM)
    sizes = list(dict.fromkeys([img_size, resolved.crop_size]))
    return TimmEncoder(name, sizes, student.drop_path_rate)


def _vit(student: StudentConfig, img_size: int, resolved: Resolved) -> VisionTransformer:
    logger.info(
        "Attention of the student by %s (%s)", resolved.attention, resolved.attention_reason
    )
    encoder = VisionTransformer(
        img_size=img_size,
        patch_size=student.patch_size,
        embed_dim=student.embed_dim,
        depth=student.depth,
        num_heads=student.num_heads,
        num_register_tokens=student.num_register_tokens,
        drop_path_rate=student.drop_path_rate,
        attention=resolved.attention,
        grad_checkpointing=resolved.grad_checkpointing,
    )
    if resolved.compiles:
        _compile_blocks(encoder)
    return encoder


def build_teacher(student: Student) -> Student:
    """A copy of the student that is moved and not trained, in evaluation, compiled if that is."""
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    encoder = teacher.encoder
    if isinstance(encoder, VisionTransformer) and _is_compiled(student.encoder):
        _compile_blocks(encoder)
    return teacher


def build_mask_model(
    mask: MaskConfig, student: StudentConfig, img_size: int, resolved: Resolved
) -> AdiosUNet | ViTUNet:
    """The mask model; the vit_unet's encoder has the student's patches and registers."""
    recompute = resolved.mask_grad_checkpointing
    if mask.mask_model_type == "adios":
        network = AdiosUNet(img_size, mask.num_masks, grad_checkpointing=recompute)
        return network.to(resolved.device)
    encoder = VisionTransformer(
        img_size=img_size,
        patch_size=student.patch_size,
        embed_dim=mask.mask_encoder_dim,
        depth=mask.mask_encoder_depth,
        num_heads=resolved.mask_num_heads,
        num_register_tokens=student.num_register_tokens,
        drop_path_rate=mask.mask_dropout,
        attention=resolved.mask_attention,
        grad_checkpointing=recompute,
    )
    if resolved.compiles:
        _compile_blocks(encoder)
    return ViTUNet(
        encoder,
        student.patch_size,
        mask.num_masks,
        mask.mask_dropout,
        mask.freeze_mask_encoder,
        recompute,
        mask.mask_decoder_width,
    ).to(resolved.device)


def _is_compiled(encoder: nn.Module) -> bool:
    return any(module._compiled_call_impl is not None for module in encoder.modules())


def _compile_blocks(encoder: VisionTransformer) -> None:
    """Compile the blocks in place; their weights keep their names.

    Convolutions and the head stay as they are: their time is that of the library's products.
    """
    # Torch keeps one list of compiled forms for the blocks of both networks, and calls blocks
    # plainly once it is full: a form for each shape, half of the step and kind of block.
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, NUM_FORMS)
    for block in encoder.blocks:
        block.compile(dynamic=False)
