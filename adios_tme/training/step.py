"""One update of both players (Shi et al. 2022, arXiv:2201.13100, section 3).

Shape legend: B images, N masks, K crops of a masked view, C channels, H x W pixels, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adios_tme.masking.views import apply_masks, random_crops
from adios_tme.objectives.simclr import simclr_loss
from adios_tme.objectives.sparsity import sparsity_penalty
from adios_tme.optim.schedule import Schedule
from adios_tme.training.state import Run
from adios_tme.training.update import frozen


@dataclass(frozen=True)
class Report:
    """What one step did, as tensors on the device; the mask half only when it was due."""

    student_loss: Tensor
    student_grad_norm: Tensor
    masks: Tensor
    """(B, N, H, W), without a graph."""
    mask_loss: Tensor | None = None
    mask_grad_norm: Tensor | None = None
    contrastive_loss_mask: Tensor | None = None
    sparsity_penalty: Tensor | None = None


def train_step(run: Run, images_BCHW: Tensor, now: Schedule) -> Report:
    """Update the student, then (when due) the mask model, on one batch of normalised images."""
    masks_BNHW = run.predict_masks(images_BCHW, with_graph=now.mask_is_due and run.shares_masks)
    student_loss = student_disagreement(run, images_BCHW, masks_BNHW.detach(), now.temperature)
    student_norm = run.update_student(student_loss, now.lr)
    if not now.mask_is_due:
        return Report(student_loss.detach(), student_norm, masks_BNHW.detach())

    if not run.shares_masks:
        masks_BNHW = run.predict_masks(images_BCHW, with_graph=True)
    # The judge stays frozen until the backward pass is over: checkpointed blocks run again in it.
    with frozen(run.bare_student) as judge:
        fooled = judged_disagreement(run, judge, images_BCHW, masks_BNHW, now.temperature)
        area = sparsity_penalty(masks_BNHW, run.config.loss.sparsity_penalty_type)
        mask_loss = run.config.loss.alpha_sparsity * area - fooled
        mask_norm = run.update_mask_model(mask_loss, now.mask_lr)
    if run.averaged_mask_model:
        run.averaged_mask_model.update(run.bare_mask_model)
    return Report(
        student_loss.detach(),
        student_norm,
        masks_BNHW.detach(),
        mask_loss.detach(),
        mask_norm,
        fooled.detach(),
        area.detach(),
    )


def student_disagreement(
    run: Run, images_BCHW: Tensor, masks_BNHW: Tensor, temperature: float
) -> Tensor:
    """What the student minimises: NT-Xent to the clean view, over masked views and their crops."""
    views_VBD = student_embeddings(run, run.student, images_BCHW, masks_BNHW)
    return simclr_loss(views_VBD[0], views_VBD[1:], temperature).sum()


def student_embeddings(
    run: Run, student: nn.Module, images_BCHW: Tensor, masks_BNHW: Tensor
) -> Tensor:
    """Embeddings (1 + V, B, D) of the clean view, the masked views and their crops, in one call."""
    num_images = len(images_BCHW)
    whole = apply_masks(images_BCHW, masks_BNHW, with_clean=True)
    crops = [
        random_crops(whole[num_images:], run.crop_size)
        for _ in range(run.config.mask.crops_per_mask)
    ]
    with run.autocast():
        embeddings = torch.cat(student([whole, *crops]))
    views: Tensor = embeddings.unflatten(0, (-1, num_images))
    return views


def judged_disagreement(
    run: Run, judge: nn.Module, images_BCHW: Tensor, masks_BNHW: Tensor, temperature: float
) -> Tensor:
    """What the mask model maximises: NT-Xent over the masked views, as a frozen student sees it."""
    with run.autocast():
        with torch.no_grad():
            clean_BD = judge(images_BCHW)
        hidden = judge(apply_masks(images_BCHW, masks_BNHW))
    hidden_VBD = hidden.unflatten(0, (-1, len(images_BCHW)))
    return simclr_loss(clean_BD, hidden_VBD, temperature).sum()
