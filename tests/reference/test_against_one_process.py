"""Several ranks against one process that holds all their images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adios_tme.distributed import World, process_group
from adios_tme.losses.contrastive import simclr_loss
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import tiny_config
from tests.spawn import run_on_ranks

NUM_IMAGES, NUM_VIEWS, WIDTH = 8, 3, 5


def embeddings() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    clean = torch.randn(NUM_IMAGES, WIDTH, generator=generator, dtype=torch.float64)
    hidden = torch.randn(NUM_VIEWS, NUM_IMAGES, WIDTH, generator=generator, dtype=torch.float64)
    return clean, hidden


def loss_and_gradient(own: slice) -> tuple[list[float], Tensor]:
    """Loss of one rank's images, and the gradient on them of the mean loss over ranks."""
    with process_group("cpu") as world:
        clean, hidden = embeddings()
        clean, hidden = clean[own], hidden[:, own].requires_grad_()
        losses = simclr_loss(clean, hidden, 0.2)
        (gradient,) = torch.autograd.grad(losses.sum() / world.num_ranks, hidden)
        return losses.tolist(), gradient


def on_own_rank(num_ranks: int) -> tuple[list[float], Any]:
    import os

    share = NUM_IMAGES // num_ranks
    start = int(os.environ["RANK"]) * share
    losses, gradient = loss_and_gradient(slice(start, start + share))
    return losses, gradient.numpy()


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_loss_and_gradient(num_ranks: int) -> None:
    losses, gradient = loss_and_gradient(slice(0, NUM_IMAGES))
    answers = run_on_ranks(on_own_rank, num_ranks, num_ranks)
    mean = torch.tensor([answer[0] for answer in answers]).mean(dim=0)
    torch.testing.assert_close(mean, torch.tensor(losses), rtol=1e-6, atol=0)
    joined = torch.cat([torch.from_numpy(answer[1]) for answer in answers], dim=1)
    torch.testing.assert_close(joined, gradient, rtol=1e-5, atol=1e-8)


def weights_after_two_steps(folder: str) -> dict[str, Any]:
    """Train on given images, this rank on its share of them; weights as arrays."""
    with process_group("cpu") as world:
        # Steps in proportion to gradients: Adam's would blow up the rounding of those near zero.
        config = tiny_config(Path(folder), Path(folder), optimizer_type="sgd", lr=0.1)
        run = Run.build(config, world)
        share = NUM_IMAGES // world.num_ranks
        for step in range(2):
            generator = torch.Generator().manual_seed(step)
            images = torch.randn(NUM_IMAGES, 3, 32, 32, generator=generator)
            train_step(run, images[world.rank * share :][:share], run.schedule())
            run.advance()
        state = run.bare_student.state_dict() | run.bare_mask_model.state_dict()
        return {name: weight.numpy() for name, weight in state.items()}


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_two_steps_move_the_weights_alike(num_ranks: int, tmp_path: Path) -> None:
    alone = weights_after_two_steps(str(tmp_path))
    first, *others = run_on_ranks(weights_after_two_steps, num_ranks, str(tmp_path))
    for name, weight in alone.items():
        torch.testing.assert_close(first[name], weight, rtol=1e-5, atol=1e-7, msg=name)
        for other in others:
            assert (first[name] == other[name]).all()


def test_a_world_of_one_is_no_group() -> None:
    with process_group("cpu") as world:
        assert world == World(0, 1, 0, 1, torch.device("cpu"))
