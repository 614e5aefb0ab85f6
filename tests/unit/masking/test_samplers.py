"""Which masks become views."""

from __future__ import annotations

import torch

from adios_tme.masking.samplers import SAMPLERS, adios, adios_s


def test_all_masks_become_views() -> None:
    masks = torch.rand(2, 3, 4, 4)
    assert adios(masks) is masks
    assert SAMPLERS["adios"] is adios


def test_one_mask_of_each_image_is_drawn() -> None:
    masks = torch.rand(600, 3, 2, 2).softmax(dim=1)
    drawn = adios_s(masks)
    assert drawn.shape == (600, 1, 2, 2)
    is_it = (masks == drawn).all(dim=(2, 3))
    assert (is_it.sum(dim=1) == 1).all()
    # Of 600 images each mask takes 200, give or take 11.5: five times that is no chance.
    assert ((is_it.sum(dim=0) - 200).abs() < 58).all()
    assert not torch.equal(adios_s(masks), drawn)


def test_gradients_reach_the_drawn_mask_alone() -> None:
    masks = torch.rand(5, 3, 2, 2, requires_grad=True)
    drawn = adios_s(masks)
    drawn.sum().backward()
    assert masks.grad is not None
    chosen = (masks == drawn).all(dim=(2, 3))
    assert torch.equal(masks.grad.amax(dim=(2, 3)), chosen.float())
    assert torch.equal(masks.grad.amin(dim=(2, 3)), chosen.float())
