"""Losses against loops over pairs in double precision."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from adios_tme.config.objective import LossConfig
from adios_tme.objectives.area import AreaPenalty
from adios_tme.objectives.consistency import consistency_penalty
from adios_tme.objectives.reconstruction import reconstruction_penalty
from adios_tme.objectives.simclr import simclr_loss
from adios_tme.objectives.smoothness import edge_penalty
from adios_tme.objectives.sparsity import entropy_penalty, sparsity_penalty
from adios_tme.objectives.stain_prior import NUM_LEVELS, SOFTNESS, otsu, soft_target, stain_penalty


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


def some_masks(side: int = 8) -> NDArray[np.float64]:
    """Masks (4, 3, side, side) of three sizes."""
    rng = np.random.default_rng(0)
    return rng.dirichlet([0.3, 1, 2], size=(4, side, side)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["inverse_sin", "sinh_squared"])
def test_penalties(kind: str) -> None:
    masks = some_masks()
    found = sparsity_penalty(torch.tensor(masks), kind)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(penalty_by_loops(masks, kind), rel=1e-5)


def test_penalties_at_areas_worked_out_by_hand() -> None:
    half = torch.full((1, 2, 4, 4), 0.5)
    assert sparsity_penalty(half, "inverse_sin").item() == pytest.approx(2.0)
    assert sparsity_penalty(half, "sinh_squared").item() == pytest.approx(0.0, abs=1e-9)
    sixth = torch.full((1, 1, 4, 4), 1 / 6)  # sin(pi / 6) = 1/2
    assert sparsity_penalty(sixth, "inverse_sin").item() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("targets", [(0.2, 0.3, 0.5), (0.5, 0.2, 0.3)])
@pytest.mark.parametrize("over", ["image", "batch"])
def test_targets_take_the_nearest_masks(over: str, targets: tuple[float, ...]) -> None:
    masks = some_masks()
    rows = masks.mean(axis=(2, 3))
    rows = rows.mean(axis=0, keepdims=True) if over == "batch" else rows
    # Of all ways to match masks and targets, the one with the least distance.
    expected = np.mean(
        [
            min(((row - np.array(way)) ** 2).sum() for way in itertools.permutations(targets))
            for row in rows
        ]
    )
    penalty = AreaPenalty(LossConfig(area_targets=targets, area_over=over))
    assert penalty(torch.tensor(masks)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["inverse_sin", "sinh_squared"])
def test_a_penalty_over_the_batch_is_that_of_one_long_image(kind: str) -> None:
    masks = some_masks()
    joined = np.concatenate(list(masks), axis=-1)[None]
    penalty = AreaPenalty(LossConfig(sparsity_penalty_type=kind, area_over="batch"))
    expected = penalty_by_loops(joined, kind)
    assert penalty(torch.tensor(masks)).item() == pytest.approx(expected, rel=1e-5)
    assert abs(expected / penalty_by_loops(masks, kind) - 1) > 1e-4


def test_entropy_of_areas() -> None:
    masks = some_masks()
    total = 0.0
    for image in masks:
        powers = [math.exp(mask.mean()) for mask in image]
        shares = [power / sum(powers) for power in powers]
        total -= sum(share * math.log(share) for share in shares) / len(masks)
    assert entropy_penalty(torch.tensor(masks)).item() == pytest.approx(total, rel=1e-6)
    alike = torch.full((2, 3, 4, 4), 1 / 3)
    assert entropy_penalty(alike).item() == pytest.approx(math.log(3))
    assert total < math.log(3) - 1e-3


def edges_by_loops(masks: NDArray[np.float64], density: NDArray[np.float64]) -> float:
    """Pair of neighbours by pair of neighbours."""
    num_images, num_masks, height, width = masks.shape
    total = 0.0
    for image, mask, down in itertools.product(range(num_images), range(num_masks), (0, 1)):
        pairs = [
            ((y, x), (y + down, x + 1 - down))
            for y in range(height - down)
            for x in range(width - 1 + down)
        ]
        for one, other in pairs:
            change = abs(masks[image, mask][one] - masks[image, mask][other])
            edge = abs(density[image][one] - density[image][other])
            total += change * math.exp(-10 * edge) / len(pairs) / num_images
    return total


def test_edges_of_masks_cost_where_there_is_none_in_the_tissue() -> None:
    masks = some_masks()[..., :5]
    density = np.random.default_rng(1).random((4, 8, 5)) / 5
    found = edge_penalty(torch.tensor(masks), torch.tensor(density)).item()
    assert found == pytest.approx(edges_by_loops(masks, density), rel=1e-5)


def test_masks_that_follow_the_mirrored_image_are_consistent() -> None:
    masks, others = torch.tensor(some_masks()), torch.tensor(some_masks()[::-1].copy())
    assert consistency_penalty(masks, torch.flip(masks, dims=[3])).item() == 0
    expected = ((masks - others[..., list(range(8))[::-1]]) ** 2).sum() / (4 * 8 * 8)
    assert consistency_penalty(masks, others).item() == pytest.approx(expected.item(), rel=1e-5)


def reconstruction_by_loops(masks: NDArray[np.float64], features: NDArray[np.float64]) -> float:
    """Region by region and patch by patch; features (B, D, h, w) of patches of 2 x 2 pixels."""
    total = 0.0
    for shares, vectors in zip(masks, features, strict=True):
        _, height, across = vectors.shape
        patches = [
            (shares[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(axis=(1, 2)), vectors[:, y, x])
            for y in range(height)
            for x in range(across)
        ]
        unit = [(share, vector / np.linalg.norm(vector)) for share, vector in patches]
        regions = [
            sum(share[mask] * vector for share, vector in unit)
            / sum(share[mask] for share, _ in unit)
            for mask in range(len(shares))
        ]
        mean = sum(vector for _, vector in unit) / len(unit)
        left = sum(
            ((vector - sum(s * r for s, r in zip(share, regions, strict=True))) ** 2).sum()
            for share, vector in unit
        )
        total += left / sum(((vector - mean) ** 2).sum() for _, vector in unit)
    return total / len(masks)


def test_regions_rebuild_the_features_of_their_patches() -> None:
    masks = some_masks()
    features = np.random.default_rng(2).normal(size=(4, 6, 4, 4)) + 1
    found = reconstruction_penalty(torch.tensor(masks), torch.tensor(features)).item()
    assert found == pytest.approx(reconstruction_by_loops(masks, features), rel=1e-5)
    alike = torch.full((4, 3, 8, 8), 1 / 3)
    assert reconstruction_penalty(alike, torch.tensor(features)).item() == pytest.approx(1)
    kinds = torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 2, 1], [0, 0, 1, 1]])
    pure = torch.nn.functional.one_hot(kinds, 3).permute(2, 0, 1)[None].float()
    vectors = torch.randn(5, 3)[:, kinds][None]
    whole = pure.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert reconstruction_penalty(whole, vectors).item() == pytest.approx(0, abs=1e-6)


def some_amounts() -> NDArray[np.float64]:
    """Haematoxylin (B, H, W) with dark squares on a noisy ground, more of them in each image."""
    generator = np.random.default_rng(3)
    amounts = generator.random((3, 24, 20)) / 5
    for image, row in itertools.product(range(3), range(3)):
        amounts[image, 8 * row : 8 * row + 5, 3 : 6 + 4 * image] += 0.5
    return amounts


def target_by_skimage(amount: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Soft target of one image and its weight, with the classes counted pixel by pixel."""
    smooth = ndimage.gaussian_filter(amount, 1.0, mode="nearest", truncate=3.0)
    low, span = smooth.min(), np.ptp(smooth)
    level = np.minimum(((smooth - low) / span * NUM_LEVELS).astype(int), NUM_LEVELS - 1)
    counts = np.bincount(level.ravel(), minlength=NUM_LEVELS)
    last_below = threshold_otsu(hist=(counts, np.arange(NUM_LEVELS)))
    classes = [level[level <= last_below], level[level > last_below]]
    apart = (classes[1].mean() - classes[0].mean()) / NUM_LEVELS * span
    within = sum(values.var() * values.size for values in classes) / level.size
    threshold = low + (last_below + 1) / NUM_LEVELS * span
    target = 1 / (1 + np.exp(-(smooth - threshold) / (SOFTNESS * apart)))
    return target, 1 - within / level.var()


def test_the_first_mask_is_drawn_to_what_takes_up_haematoxylin() -> None:
    amounts = some_amounts()
    generator = np.random.default_rng(4)
    logits = generator.normal(size=(3, 3, 24, 20))
    masks = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = 0.0
    for amount, mask in zip(amounts, masks[:, 0], strict=True):
        target, weight = target_by_skimage(amount)
        entropy = -(target * np.log(mask) + (1 - target) * np.log(1 - mask)).mean()
        expected += weight * entropy / len(amounts)
    found = stain_penalty(torch.tensor(masks), torch.tensor(amounts)).item()
    assert found == pytest.approx(expected, rel=1e-4)
    target_BHW, weight_B = soft_target(torch.tensor(amounts))
    rest_BHW = (1 - target_BHW) / 2
    best = torch.stack([target_BHW, rest_BHW, rest_BHW], dim=1)
    assert stain_penalty(best, torch.tensor(amounts)).item() < found
    assert ((weight_B > 0.5) & (weight_B < 1)).all()


def test_a_flat_image_asks_nothing_of_the_first_mask() -> None:
    masks = torch.full((1, 3, 24, 20), 1 / 3, requires_grad=True)
    penalty = stain_penalty(masks, torch.full((1, 24, 20), 0.3))
    penalty.backward()
    assert penalty.item() == 0
    assert masks.grad is not None
    assert torch.equal(masks.grad, torch.zeros_like(masks))
    threshold, apart, separability = otsu(torch.full((2, 9), 0.3))
    assert torch.equal(apart, torch.zeros(2))
    assert torch.equal(separability, torch.zeros(2))
    assert torch.isfinite(threshold).all()
