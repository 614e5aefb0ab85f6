"""The step of a run and plain ones, side by side for the benchmark to time."""

from __future__ import annotations

import torch
from torch import Tensor

from adios_tme.benchmark.throughput.measure import FAST, OnProgress, OnResults, measure
from adios_tme.benchmark.throughput.phases import BuildVariant, StepVariant
from adios_tme.benchmark.throughput.plain_step import PlainNetworks, plain_step
from adios_tme.benchmark.throughput.results import Measurement
from adios_tme.config.commands.throughput import ThroughputConfig
from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import World, choose_device
from adios_tme.errors import ConfigError
from adios_tme.masking.views import random_crops
from adios_tme.models.resolve import resolve
from adios_tme.objectives.byol import BYOL
from adios_tme.optim.schedule import schedule_at
from adios_tme.training.state import Run
from adios_tme.training.step import train_step


def measure_throughput(
    config: ThroughputConfig,
    on_progress: OnProgress,
    on_results: OnResults = lambda results: None,
) -> Measurement:
    """Measure the step of a run, and the baselines that are asked for.

    Args:
        config: What to measure.
        on_progress: Told the cases that are done and all.
        on_results: Given the results so far after every case.

    Raises:
        ConfigError: If settings do not go together, or do not fit the machine.
        DataError: If the earlier measurement cannot be understood.
    """
    device = choose_device(config.compute.device)
    variants: dict[str, BuildVariant] = {FAST: step_of_a_run}
    asked: list[str] = [config.baseline] if config.baseline else []
    if config.baseline == "all":
        asked = [name for name in BASELINES if device.type == "cuda" or "cache" not in name]
    variants |= {name: BASELINES[name] for name in asked}
    return measure(config, device, variants, on_progress, on_results)


def step_of_a_run(config: TrainConfig, device: torch.device) -> StepVariant:
    """The step that training takes."""
    run = Run.build(config, World(0, 1, 0, 1, device))
    now = run.schedule()
    return StepVariant(
        run.bare_student,
        run.bare_mask_model,
        run.update_student.optimizer,
        run.update_mask_model.optimizer,
        lambda images: train_step(run, images, now),
        run.objective.teacher if isinstance(run.objective, BYOL) else None,
    )


def naive(config: TrainConfig, device: torch.device) -> StepVariant:
    """Two plain halves, eager."""
    compute = config.compute.model_copy(update={"compile": "off"})
    config = config.model_copy(update={"compute": compute})
    crop_size = resolve(config, device).crop_size
    networks = PlainNetworks.build(config, device, lambda views: random_crops(views, crop_size))
    now = schedule_at(config.optim, config.loss, config.mask, 0)
    return StepVariant(
        networks.student,
        networks.mask_model,
        networks.student_optimizer,
        networks.mask_optimizer,
        lambda images: plain_step(networks, images, now),
    )


def naive_checkpointing(config: TrainConfig, device: torch.device) -> StepVariant:
    """Those with the student's blocks computed again in the backward pass."""
    compute = config.compute.model_copy(update={"grad_checkpointing": True})
    return naive(config.model_copy(update={"compute": compute}), device)


def naive_empty_cache(config: TrainConfig, device: torch.device) -> StepVariant:
    """Two plain halves, and every step ends by emptying the cache of CUDA's allocator."""
    if device.type != "cuda":
        raise ConfigError(
            f"baseline=naive_empty_cache: {device.type} has no cache to empty. "
            f"Use --baseline naive."
        )
    one = naive(config, device)

    def step(images: Tensor) -> object:
        losses = one.step(images)
        torch.cuda.empty_cache()
        return losses

    return StepVariant(one.student, one.mask_model, one.student_optimizer, one.mask_optimizer, step)


BASELINES: dict[str, BuildVariant] = {
    "naive": naive,
    "naive_checkpointing": naive_checkpointing,
    "naive_empty_cache": naive_empty_cache,
}
