"""What changes from one iteration to the next: plain functions of the iteration, no state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adios_tme.config.model import MaskConfig
from adios_tme.config.objective import LossConfig
from adios_tme.config.optim import OptimConfig


@dataclass(frozen=True)
class Schedule:
    """The settings of one step."""

    lr: float
    mask_lr: float
    temperature: float
    mask_is_due: bool
    mask_is_frozen: bool
    """Whether the mask model is never due again."""
    stain_is_over: bool
    """Whether the stain no longer draws the first mask."""
    teacher_momentum: float
    """Share of a momentum teacher that an update keeps."""


def schedule_at(optim: OptimConfig, loss: LossConfig, mask: MaskConfig, iteration: int) -> Schedule:
    """Settings of the step that follows ``iteration`` finished ones."""
    total = optim.total_iterations
    lr = warmup_cosine(iteration, total, optim.warmup_iterations, optim.lr, optim.min_lr)
    is_frozen = _is_past(mask.train_mask_until, iteration, total)
    is_learned = mask.mask_source == "learned"
    return Schedule(
        lr=lr,
        mask_lr=lr * optim.mask_lr_ratio,
        temperature=half_cosine(iteration, total, loss.initial_temp, loss.final_temp),
        mask_is_due=is_learned and not is_frozen and iteration % mask.mask_update_freq == 0,
        mask_is_frozen=is_frozen,
        stain_is_over=_is_past(loss.stain_until, iteration, total),
        teacher_momentum=half_cosine(iteration, total, loss.teacher_momentum, 1.0),
    )


def _is_past(share: float, iteration: int, total: int) -> bool:
    """Whether a share of the run is done; the whole of it never is, not even by a longer run."""
    return share < 1 and iteration >= share * total


def half_cosine(step: int, total: int, start: float, end: float) -> float:
    """Fall (or rise) from ``start`` at step 0 to ``end`` at step ``total`` by half a cosine.

    Args:
        step: Finished steps; beyond ``total`` the end value stays.
        total: Steps of the whole way.
        start: Value at step 0.
        end: Value at step ``total``.
    """
    share = min(1.0, step / total) if total > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def warmup_cosine(step: int, total: int, warmup: int, peak: float, end: float) -> float:
    """Rise linearly to ``peak`` over the warm-up, then fall to ``end`` by half a cosine.

    The first step already moves: it takes ``peak / warmup``.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return half_cosine(step - warmup, total - warmup, peak, end)
