"""What changes from one iteration to the next: plain functions of the iteration, no state."""

from __future__ import annotations

from dataclasses import dataclass

from adios_tme.config.train import TrainConfig
from adios_tme.optim.schedules import half_cosine, warmup_cosine


@dataclass(frozen=True)
class Schedule:
    """The settings of one step."""

    lr: float
    mask_lr: float
    temperature: float
    mask_is_due: bool


def schedule_at(config: TrainConfig, iteration: int) -> Schedule:
    """Settings of the step that follows ``iteration`` finished ones."""
    optim, loss = config.optim, config.loss
    total = optim.total_iterations
    lr = warmup_cosine(iteration, total, optim.warmup_iterations, optim.lr, optim.min_lr)
    return Schedule(
        lr=lr,
        mask_lr=lr * optim.mask_lr_ratio,
        temperature=half_cosine(iteration, total, loss.initial_temp, loss.final_temp),
        mask_is_due=config.mask.mask_source == "learned"
        and iteration % config.mask.mask_update_freq == 0,
    )
