"""Hidden views and crops."""

from __future__ import annotations

import torch

from adios_tme.masking.views import CROP_AREA, apply_masks, random_crops


def test_hide_removes_each_masks_region() -> None:
    images = torch.randn(2, 3, 4, 4)
    masks = torch.rand(2, 5, 4, 4).softmax(dim=1)
    views = apply_masks(images, masks)
    assert views.shape == (10, 3, 4, 4)
    for mask in range(5):
        for image in range(2):
            expected = images[image] * (1 - masks[image, mask])
            torch.testing.assert_close(views[mask * 2 + image], expected)


def test_crops_show_a_part_of_their_view_at_the_asked_size() -> None:
    # Each view holds its own coordinates, so a crop tells which box it shows.
    side = 64
    line = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)
    view = torch.stack([line.expand(side, side), line[:, None].expand(side, side)])
    crops = random_crops(view.expand(200, 2, side, side), crop_size=32)
    assert crops.shape == (200, 2, 32, 32)
    width = (crops[:, 0].amax((1, 2)) - crops[:, 0].amin((1, 2))) / 2
    height = (crops[:, 1].amax((1, 2)) - crops[:, 1].amin((1, 2))) / 2
    area = width * height
    assert area.min() > CROP_AREA[0] * 0.85
    assert area.max() <= CROP_AREA[1]
    assert area.std() > 0.1
    assert crops.abs().max() <= 1


def test_gradients_reach_the_masks_through_a_view() -> None:
    masks = torch.rand(1, 2, 4, 4, requires_grad=True)
    apply_masks(torch.ones(1, 3, 4, 4), masks).sum().backward()
    torch.testing.assert_close(masks.grad, torch.full_like(masks, -3.0))
