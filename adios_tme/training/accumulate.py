"""One update of student and mask model on more images than a rank holds at a time.

Where an image's loss, or the penalty on its masks, depends on every other image of the update,
adding up the gradients of small batches is not enough. So that half runs twice (Gao et al. 2021,
arXiv:2101.06983): first without a graph, for the embeddings of all passes and the loss's gradient
on them; then pass by pass with a graph, through which that gradient flows. The numbers are those of
one large batch; the price is one more forward. Other objectives are averaged over the passes.

Shape legend: B images of a pass, N masks, V masked views, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adios_tme.optim.schedule import Schedule
from adios_tme.training.state import Run, random_state, set_random_state
from adios_tme.training.step import Report, embed_clean, embed_masked, embed_with_crops
from adios_tme.training.update import Updater, frozen

RandomState = dict[str, Tensor]
#: Embeddings of one pass by its number: (V, B, ...) of the masked views, in the student's half with
#: the clean one before them, which has a gradient there.
Embed = Callable[[int], Tensor]


def accumulated_step(
    run: Run, batches: list[Tensor], now: Schedule, cleans: list[Tensor] | None = None
) -> Report:
    """Do as `adios_tme.training.step.train_step` does with all images at once.

    Args:
        run: The run.
        batches: Normalised images (B, C, H, W) of each pass.
        now: Settings of this step.
        cleans: Of each pass, what its masked views are compared with; absent: its images.

    Returns:
        Losses and norms of the whole update; the masks are those of the last pass.
    """
    draws: list[RandomState] = []
    masks: list[Tensor] = []
    for images_BCHW in batches:
        draws.append(random_state(run.resolved.device))
        masks.append(run.predict_masks(images_BCHW, with_graph=False).detach())
    cleans = cleans or batches
    student_loss, student_norm = _update_student(run, batches, cleans, masks, now)
    if not now.mask_is_due:
        run.follow(now)
        return Report(student_loss=student_loss, student_grad_norm=student_norm, masks=masks[-1])

    contrastive, penalties, mask_norm = _update_mask_model(run, batches, cleans, masks, draws, now)
    run.follow(now)
    return Report(
        student_loss=student_loss,
        student_grad_norm=student_norm,
        masks=masks[-1],
        mask_loss=run.mask_penalty.loss(contrastive, penalties),
        mask_grad_norm=mask_norm,
        contrastive_loss_mask=contrastive,
        penalties=penalties,
    )


def _update_student(
    run: Run,
    batches: list[Tensor],
    cleans: list[Tensor],
    masks: list[Tensor],
    now: Schedule,
) -> tuple[Tensor, Tensor]:
    def embed(number: int) -> Tensor:
        student = run.student if torch.is_grad_enabled() else run.bare_student
        return embed_with_crops(run, student, batches[number], cleans[number], masks[number])

    update = run.update_student
    update.zero()
    play_twice = run.objective.needs_whole_batch
    passes = _passes(run, embed, len(batches), now, update, play_twice)
    for number in range(len(batches)):
        passes.begin(number)
        with _sends_gradients(run.student, number == len(batches) - 1):
            update.backward(passes.loss_of(number, embed(number)))
    return passes.loss(), update.step(now.lr)


def _update_mask_model(
    run: Run,
    batches: list[Tensor],
    cleans: list[Tensor],
    student_masks: list[Tensor],
    draws: list[RandomState],
    now: Schedule,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    device, num_passes = run.resolved.device, len(batches)
    play_twice = run.objective.needs_whole_batch or run.mask_penalty.needs_whole_batch
    masks: dict[int, Tensor] = {}
    penalties: list[dict[str, Tensor]] = []

    def predict(number: int) -> Tensor:
        with_graph = torch.is_grad_enabled()
        if not run.resolved.shares_masks:
            return run.predict_masks(batches[number], with_graph=with_graph)
        if not with_graph:  # the mask model has not moved since the student's half
            return student_masks[number]
        after = random_state(device)
        set_random_state(draws[number], device)  # those of the student's half, dropout and all
        masks_BNHW = run.predict_masks(batches[number], with_graph=True)
        set_random_state(after, device)
        return masks_BNHW

    def embed(number: int) -> Tensor:
        masks[number] = predict(number)
        return embed_masked(run, batches[number], masks[number])

    update = run.update_mask_model
    with frozen(run.bare_student, run.objective):
        clean = [embed_clean(run, images_BCHW) for images_BCHW in cleans]
        update.zero()
        passes = _passes(run, embed, num_passes, now, update, play_twice, clean)
        update_area_N = run.mask_penalty.update_area(list(masks.values()))
        for number in range(num_passes):
            passes.begin(number)
            with _sends_gradients(run.mask_model, number == num_passes - 1):
                contrastive = passes.loss_of(number, embed(number))
                of_pass = run.mask_penalty(
                    run, batches[number], masks.pop(number), now, update_area_N
                )
                shares = {name: penalty / num_passes for name, penalty in of_pass.items()}
                update.backward(run.mask_penalty.loss(contrastive, shares))
            penalties.append({name: penalty.detach() for name, penalty in of_pass.items()})
        return passes.loss(), _means(penalties), update.step(now.mask_lr)


def _means(penalties: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of each penalty over the passes."""
    return {name: torch.stack([each[name] for each in penalties]).mean() for name in penalties[0]}


class _Passes(Protocol):
    """What is gone back from in each pass, so that their gradients add up to the update's."""

    def begin(self, number: int) -> None:
        """Before a pass."""

    def loss_of(self, number: int, embeddings: Tensor) -> Tensor:
        """A scalar with this pass's part of the gradient."""

    def loss(self) -> Tensor:
        """Of the whole update, once all passes are done."""


def _passes(
    run: Run,
    embed: Embed,
    num_passes: int,
    now: Schedule,
    update: Updater,
    play_twice: bool,
    clean: Sequence[Tensor] = (),
) -> _Passes:
    if play_twice:
        return _WholeBatch(run, embed, num_passes, now, update, clean)
    return _Separate(run, num_passes, now, clean)


def _loss(run: Run, embeddings: Tensor, clean: Sequence[Tensor], now: Schedule) -> Tensor:
    """Of masked views and their clean one, which stands before them or apart."""
    if clean:
        return run.objective.mask_loss(torch.cat(list(clean)), embeddings, now).sum()
    return run.objective.loss(embeddings[0], embeddings[1:], now).sum()


class _WholeBatch:
    """The loss over the embeddings of all passes, whose gradient flows on pass by pass."""

    def __init__(
        self,
        run: Run,
        embed: Embed,
        num_passes: int,
        now: Schedule,
        update: Updater,
        clean: Sequence[Tensor],
    ) -> None:
        self._device = run.resolved.device
        self._states, parts = [], []
        with torch.no_grad():
            for number in range(num_passes):
                self._states.append(random_state(self._device))
                parts.append(embed(number))
        embeddings = torch.cat(parts, dim=1).requires_grad_()
        loss = _loss(run, embeddings, clean, now)
        own = [weight for weight in run.objective.parameters() if weight.requires_grad]
        gradient, *of_own = torch.autograd.grad(loss, [embeddings, *own])
        update.add_gradients(own, of_own)
        self._through = gradient.chunk(num_passes, dim=1)
        self._loss = loss.detach()

    def begin(self, number: int) -> None:
        set_random_state(self._states[number], self._device)

    def loss_of(self, number: int, embeddings: Tensor) -> Tensor:
        return (embeddings * self._through[number]).sum()

    def loss(self) -> Tensor:
        return self._loss


class _Separate:
    """The mean of each pass's own loss."""

    def __init__(self, run: Run, num_passes: int, now: Schedule, clean: Sequence[Tensor]) -> None:
        self._run, self._now, self._num_passes, self._clean = run, now, num_passes, clean
        self._losses: list[Tensor] = []

    def begin(self, number: int) -> None:
        """Nothing is played again."""

    def loss_of(self, number: int, embeddings: Tensor) -> Tensor:
        clean = self._clean[number : number + 1]
        loss = _loss(self._run, embeddings, clean, self._now) / self._num_passes
        self._losses.append(loss.detach())
        return loss

    def loss(self) -> Tensor:
        return torch.stack(self._losses).sum()


def _sends_gradients(network: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """Ranks add up their gradients once, in the last pass."""
    if is_last or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()
