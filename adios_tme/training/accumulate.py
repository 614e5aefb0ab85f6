"""One update of both players on more images than a rank holds at a time.

Adding up the gradients of small batches is not enough here: each image of a contrastive loss is
compared with every other one of the update. So every half runs twice (Gao et al. 2021,
arXiv:2101.06983): first without a graph, for the embeddings of all passes and the loss's gradient
on them; then pass by pass with a graph, through which that gradient flows. The numbers are those of
one large batch; the price is one more forward.

Shape legend: B images of a pass, N masks, V views, C channels, H x W pixels, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adios_tme.masking.views import apply_masks
from adios_tme.objectives.simclr import simclr_loss
from adios_tme.objectives.sparsity import sparsity_penalty
from adios_tme.optim.schedule import Schedule
from adios_tme.training.state import Run, random_state, set_random_state
from adios_tme.training.step import Report, student_embeddings
from adios_tme.training.update import Updater, frozen

RandomState = dict[str, Tensor]


def accumulated_step(run: Run, batches: list[Tensor], now: Schedule) -> Report:
    """Do as `adios_tme.training.step.train_step` does with all images at once.

    Args:
        run: The run.
        batches: Normalised images (B, C, H, W) of each pass.
        now: Settings of this step.

    Returns:
        Losses and norms of the whole update; the masks are those of the last pass.
    """
    draws = [random_state(run.world.device)]
    masks: list[Tensor] = []
    for images_BCHW in batches:
        masks.append(run.predict_masks(images_BCHW, with_graph=False).detach())
        draws.append(random_state(run.world.device))
    student_loss, student_norm = _update_student(run, batches, masks, now)
    if not now.mask_is_due:
        return Report(student_loss, student_norm, masks[-1])

    fooled, area, mask_norm = _update_mask_model(run, batches, draws, now)
    if run.averaged_mask_model:
        run.averaged_mask_model.update(run.bare_mask_model)
    return Report(
        student_loss,
        student_norm,
        masks[-1],
        run.config.loss.alpha_sparsity * area - fooled,
        mask_norm,
        fooled,
        area,
    )


def _update_student(
    run: Run, batches: list[Tensor], masks: list[Tensor], now: Schedule
) -> tuple[Tensor, Tensor]:
    def embed(number: int) -> Tensor:
        student = run.student if torch.is_grad_enabled() else run.bare_student
        return student_embeddings(run, student, batches[number], masks[number])

    embeddings, states = _embed_all(run, embed, len(batches))
    clean_BD, hidden_VBD = embeddings[0], embeddings[1:]
    loss = simclr_loss(clean_BD, hidden_VBD, now.temperature).sum()
    (grad,) = torch.autograd.grad(loss, embeddings)

    run.update_student.zero()
    for number, through in enumerate(grad.chunk(len(batches), dim=1)):
        set_random_state(states[number], run.world.device)
        with _sends_gradients(run.student, number == len(batches) - 1):
            run.update_student.backward((embed(number) * through).sum())
    return loss.detach(), run.update_student.step(now.lr)


def _update_mask_model(
    run: Run, batches: list[Tensor], draws: list[RandomState], now: Schedule
) -> tuple[Tensor, Tensor, Tensor]:
    device, num_passes = run.world.device, len(batches)
    areas: list[Tensor] = []

    def embed(number: int) -> Tensor:
        if run.shares_masks:  # the draws of the student's half, dropout and all
            after = random_state(device)
            set_random_state(draws[number], device)
        masks_BNHW = run.predict_masks(batches[number], with_graph=torch.is_grad_enabled())
        if run.shares_masks:
            set_random_state(after, device)
        areas.append(sparsity_penalty(masks_BNHW, run.config.loss.sparsity_penalty_type))
        with run.autocast():
            hidden = judge(apply_masks(batches[number], masks_BNHW))
        hidden_VBD: Tensor = hidden.unflatten(0, (-1, len(batches[number])))
        return hidden_VBD

    with frozen(run.bare_student) as judge:
        with torch.no_grad(), run.autocast():
            clean_BD = torch.cat([judge(images_BCHW) for images_BCHW in batches])
        hidden_VBD, states = _embed_all(run, embed, num_passes)
        fooled = simclr_loss(clean_BD, hidden_VBD, now.temperature).sum()
        (grad,) = torch.autograd.grad(fooled, hidden_VBD)
        area = torch.stack(areas).mean()

        update: Updater = run.update_mask_model
        update.zero()
        for number, through in enumerate(grad.chunk(num_passes, dim=1)):
            set_random_state(states[number], device)
            with _sends_gradients(run.mask_model, number == num_passes - 1):
                disagreement = (embed(number) * through).sum()
                own_area = areas.pop() / num_passes
                update.backward(run.config.loss.alpha_sparsity * own_area - disagreement)
        return fooled.detach(), area, update.step(now.mask_lr)


def _embed_all(
    run: Run, embed: Callable[[int], Tensor], num_passes: int
) -> tuple[Tensor, list[RandomState]]:
    """Embeddings of all passes as a leaf, and the random streams with which each began."""
    states, parts = [], []
    with torch.no_grad():
        for number in range(num_passes):
            states.append(random_state(run.world.device))
            parts.append(embed(number))
    return torch.cat(parts, dim=1).requires_grad_(), states


def _sends_gradients(network: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """Ranks add up their gradients once, in the last pass."""
    if is_last or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()
