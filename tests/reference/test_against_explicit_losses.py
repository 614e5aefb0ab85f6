"""Losses against loops over pairs in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adios_tme.objectives.simclr import simclr_loss
from adios_tme.objectives.sparsity import sparsity_penalty


def nt_xent_by_loops(
    clean: NDArray[np.float64], hidden: NDArray[np.float64], temperature: float
) -> float:
    """Equation 1 of Chen et al. 2020, pair by pair."""
    rows = [row / np.linalg.norm(row) for row in [*clean, *hidden]]
    count, num_images = len(rows), len(clean)
    total = 0.0
    for i in range(count):
        positive = (i + num_images) % count
        above = math.exp(rows[i] @ rows[positive] / temperature)
        below = sum(math.exp(rows[i] @ rows[k] / temperature) for k in range(count) if k != i)
        total -= math.log(above / below)
    return total / count


def numeric_gradient(
    clean: NDArray[np.float64], hidden: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """Central differences with respect to the hidden embeddings."""
    gradient, step = np.zeros_like(hidden), 1e-6
    for place in np.ndindex(hidden.shape):
        moved = [hidden.copy(), hidden.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = (nt_xent_by_loops(clean, part, temperature) for part in moved)
        gradient[place] = (above - below) / (2 * step)
    return gradient


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("num_images", [2, 5])
def test_nt_xent_and_its_gradient(num_images: int, temperature: float) -> None:
    rng = np.random.default_rng(num_images)
    clean, hidden = rng.normal(size=(2, num_images, 7)) * 3
    hidden_BD = torch.tensor(hidden, dtype=torch.float32, requires_grad=True)
    loss = simclr_loss(torch.tensor(clean, dtype=torch.float32), hidden_BD, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(nt_xent_by_loops(clean, hidden, temperature), rel=1e-5)
    assert hidden_BD.grad is not None
    expected = numeric_gradient(clean, hidden, temperature)
    np.testing.assert_allclose(hidden_BD.grad.numpy(), expected, rtol=2e-4, atol=1e-6)


def test_several_hidden_views_are_each_compared_with_the_clean_one() -> None:
    rng = np.random.default_rng(1)
    clean, hidden = rng.normal(size=(4, 6)), rng.normal(size=(3, 4, 6))
    losses = simclr_loss(torch.tensor(clean), torch.tensor(hidden), 0.2)
    expected = [nt_xent_by_loops(clean, view, 0.2) for view in hidden]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)


def penalty_by_loops(masks: NDArray[np.float64], kind: str) -> float:
    """Sum over masks of the mean over images, one number at a time."""
    num_images, num_masks = masks.shape[:2]
    total = 0.0
    for mask in range(num_masks):
        for image in range(num_images):
            area = masks[image, mask].mean()
            if kind == "inverse_sin":
                total += 1 / (math.sin(math.pi * area) + 1e-10) / num_images
            else:
                total += math.sinh(math.pi * abs(area - 0.5)) ** 2 / num_images
    return total


@pytest.mark.parametrize("kind", ["inverse_sin", "sinh_squared"])
def test_penalties(kind: str) -> None:
    masks = np.random.default_rng(0).dirichlet([0.3, 1, 2], size=(4, 8, 8)).transpose(0, 3, 1, 2)
    found = sparsity_penalty(torch.tensor(masks), kind)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(penalty_by_loops(masks, kind), rel=1e-5)


def test_penalties_at_areas_worked_out_by_hand() -> None:
    half = torch.full((1, 2, 4, 4), 0.5)
    assert sparsity_penalty(half, "inverse_sin").item() == pytest.approx(2.0)
    assert sparsity_penalty(half, "sinh_squared").item() == pytest.approx(0.0, abs=1e-9)
    sixth = torch.full((1, 1, 4, 4), 1 / 6)  # sin(pi / 6) = 1/2
    assert sparsity_penalty(sixth, "inverse_sin").item() == pytest.approx(2.0, rel=1e-5)
