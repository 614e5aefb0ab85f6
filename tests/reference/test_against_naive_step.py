"""The step of a run, which saves what it can, against two plain halves that save nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adios_tme.benchmark.throughput.plain_step import PlainNetworks, plain_step
from adios_tme.distributed.world import World
from adios_tme.masking.views import random_crops
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import VIT_UNET, tiny_config

CPU = torch.device("cpu")


def gradients_of_updates(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[Tensor]:
    """Filled with the network's gradients when its optimiser steps."""
    seen: list[Tensor] = []

    def note(*_: object) -> None:
        seen.extend(
            weight.grad.clone() for weight in network.parameters() if weight.grad is not None
        )

    optimizer.register_step_pre_hook(note)
    return seen


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"num_masks": 5, "crops_per_mask": 2, "crop_size": 16},
        {"crops_per_mask": 1, "clip_grad": 0.0, "sparsity_penalty_type": "sinh_squared"},
        VIT_UNET | {"mask_dropout": 0.0},
        VIT_UNET | {"mask_dropout": 0.0, "mask_forward": "separate", "crops_per_mask": 1},
        VIT_UNET | {"mask_dropout": 0.0, "freeze_mask_encoder": True},
        {"grad_checkpointing": True, "optimizer_type": "sgd"},
        {"fill": "mean", "edge_weight": 2.0, "area_over": "batch"},
        {"fill": "blur", "area_targets": (0.5, 0.3, 0.2), "consistency_weight": 2.0},
        VIT_UNET | {"mask_dropout": 0.0, "reconstruction_weight": 2.0, "stain_weight": 3.0},
    ],
)
def test_losses_and_gradients_equal_the_naive_steps(flags: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, warmup_iterations=0, **flags)
    images = torch.randn(4, 3, 32, 32)
    run = Run.build(config, World(0, 1, 0, 1, CPU))
    updaters = (run.update_student, run.update_mask_model)
    networks = (run.bare_student, run.bare_mask_model)
    ours = [
        gradients_of_updates(updater.optimizer, network)
        for updater, network in zip(updaters, networks, strict=True)
    ]
    report = train_step(run, images, now := run.schedule())

    naive = PlainNetworks.build(
        config, CPU, lambda views: random_crops(views, run.resolved.crop_size)
    )
    theirs = [
        gradients_of_updates(naive.student_optimizer, naive.student),
        gradients_of_updates(naive.mask_optimizer, naive.mask_model),
    ]
    student_loss, mask_loss = plain_step(naive, images, now)

    torch.testing.assert_close(report.student_loss, student_loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(report.mask_loss, mask_loss, rtol=1e-6, atol=0)
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine) == len(other) > 0
        size = torch.cat([grad.flatten() for grad in other]).abs().max()
        for one, two in zip(mine, other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * float(size))
