"""One update of student and mask model (Shi et al. 2022, arXiv:2201.13100, section 3).

Shape legend: B images, N masks, V views, K crops of a masked view, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adios_tme.masking.views import apply_masks, random_crops
from adios_tme.optim.schedule import Schedule
from adios_tme.training.state import Run
from adios_tme.training.update import frozen


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one step did, as tensors on the device; the mask half only when it was due."""

    student_loss: Tensor
    student_grad_norm: Tensor
    masks: Tensor
    """(B, N, H, W), without a graph."""
    mask_loss: Tensor | None = None
    mask_grad_norm: Tensor | None = None
    contrastive_loss_mask: Tensor | None = None
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    """Of the mask model, by name, before they are weighed."""


def train_step(
    run: Run, images_BCHW: Tensor, now: Schedule, clean_BCHW: Tensor | None = None
) -> Report:
    """Update the student, then (when due) the mask model, on one batch of normalised images.

    Args:
        run: The run.
        images_BCHW: Images, which are masked.
        now: Settings of this step.
        clean_BCHW: What masked views are compared with, such as another augmentation of the same
            patches; absent: the images themselves.

    Example:
        >>> import torch
        >>> from adios_tme import TrainConfig, train_step
        >>> from adios_tme.distributed.world import World
        >>> from adios_tme.training.state import Run
        >>> config = TrainConfig(data_path=[patches], output_dir="new_run", **tiny)
        >>> world = World(0, 1, 0, 1, torch.device("cpu"))  # one process
        >>> state = Run.build(config, world)
        >>> report = train_step(state, torch.randn(4, 3, 32, 32), state.schedule())
        >>> report.masks.shape, bool(report.student_loss.isfinite())
        (torch.Size([4, 3, 32, 32]), True)
    """
    shares_masks = run.resolved.shares_masks
    clean_BCHW = images_BCHW if clean_BCHW is None else clean_BCHW
    masks_BNHW = run.predict_masks(images_BCHW, with_graph=now.mask_is_due and shares_masks)
    views = embed_with_crops(run, run.student, images_BCHW, clean_BCHW, masks_BNHW.detach())
    student_loss = run.objective.loss(views[0], views[1:], now).sum()
    student_norm = run.update_student(student_loss, now.lr)
    if not now.mask_is_due:
        run.follow(now)
        return Report(
            student_loss=student_loss.detach(),
            student_grad_norm=student_norm,
            masks=masks_BNHW.detach(),
        )

    if not shares_masks:
        masks_BNHW = run.predict_masks(images_BCHW, with_graph=True)
    # Frozen until the backward pass is over: checkpointed blocks run again in it.
    with frozen(run.bare_student, run.objective):
        clean = embed_clean(run, clean_BCHW)
        masked = embed_masked(run, images_BCHW, masks_BNHW)
        contrastive = run.objective.mask_loss(clean, masked, now).sum()
        penalties = run.mask_penalty(run, images_BCHW, masks_BNHW, now)
        mask_loss = run.mask_penalty.loss(contrastive, penalties)
        mask_norm = run.update_mask_model(mask_loss, now.mask_lr)
    run.follow(now)
    return Report(
        student_loss=student_loss.detach(),
        student_grad_norm=student_norm,
        masks=masks_BNHW.detach(),
        mask_loss=mask_loss.detach(),
        mask_grad_norm=mask_norm,
        contrastive_loss_mask=contrastive.detach(),
        penalties={name: penalty.detach() for name, penalty in penalties.items()},
    )


def embed_with_crops(
    run: Run,
    student: nn.Module,
    images_BCHW: Tensor,
    clean_BCHW: Tensor,
    masks_BNHW: Tensor,
) -> Tensor:
    """Embeddings (1 + V + V*K, B, ...) of the clean view, the masked ones and crops of those."""
    num_images = len(images_BCHW)
    fill, masks = run.config.mask.fill, run.sampler(masks_BNHW)
    is_same = clean_BCHW is images_BCHW
    whole = apply_masks(images_BCHW, masks, fill, with_clean=is_same)
    if not is_same:
        whole = torch.cat([clean_BCHW, whole])
    crops = [
        random_crops(whole[num_images:], run.resolved.crop_size)
        for _ in range(run.config.mask.crops_per_mask)
    ]
    with run.autocast():
        embeddings = run.objective.embed(student, [whole, *crops])
    views: Tensor = embeddings.unflatten(0, (-1, num_images))
    return views


def embed_clean(run: Run, images_BCHW: Tensor) -> Tensor:
    """Embeddings (B, ...) of the clean view for the mask half, which needs no gradient of them."""
    with torch.no_grad(), run.autocast():
        return run.objective.embed_clean(run.bare_student, images_BCHW)


def embed_masked(run: Run, images_BCHW: Tensor, masks_BNHW: Tensor) -> Tensor:
    """Embeddings (V, B, ...) of the masked views for the mask half."""
    views_VBCHW = apply_masks(images_BCHW, run.sampler(masks_BNHW), run.config.mask.fill)
    with run.autocast():
        embeddings = run.objective.embed_masked(run.bare_student, views_VBCHW)
    masked: Tensor = embeddings.unflatten(0, (-1, len(images_BCHW)))
    return masked
