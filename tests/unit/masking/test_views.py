"""Hidden views and crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from adios_tme.config.model import Fill
from adios_tme.masking.views import BLUR, BLUR_REACH, CROP_AREA, apply_masks, hole, random_crops


def test_hide_removes_each_masks_region() -> None:
    images = torch.randn(2, 3, 4, 4)
    masks = torch.rand(2, 5, 4, 4).softmax(dim=1)
    views = apply_masks(images, masks)
    assert views.shape == (10, 3, 4, 4)
    for mask in range(5):
        for image in range(2):
            expected = images[image] * (1 - masks[image, mask])
            torch.testing.assert_close(views[mask * 2 + image], expected)


@pytest.mark.parametrize("fill", ["zero", "mean", "blur", "noise"])
def test_a_fill_stands_in_the_hole_and_nowhere_else(fill: Fill) -> None:
    images = torch.randn(2, 3, 16, 16)
    masks = torch.rand(2, 3, 16, 16).softmax(dim=1)
    masks[0, 0], masks[0, 1:] = 1, 0
    generators = [torch.Generator().manual_seed(3) for _ in "abc"]
    filled = hole(images, fill, generators[0]).expand_as(images)
    views = apply_masks(images, masks, fill, generator=generators[1])
    for mask in range(3):
        shown = 1 - masks[:, mask, None]
        expected = images * shown + filled * (1 - shown)
        torch.testing.assert_close(views[2 * mask : 2 * mask + 2], expected)
    torch.testing.assert_close(views[0], filled[0])
    torch.testing.assert_close(views[2], images[0])
    together = apply_masks(images, masks, fill, with_clean=True, generator=generators[2])
    assert torch.equal(together[:2], images)
    torch.testing.assert_close(together[2:], views)


def test_fills_are_of_their_image() -> None:
    images = torch.randn(2, 3, 64, 64) * torch.tensor([0.5, 2.0]).view(2, 1, 1, 1) + 1
    mean, noise = (hole(images, fill) for fill in ("mean", "noise"))
    torch.testing.assert_close(mean.squeeze(), images.mean(dim=(2, 3)))
    assert not torch.equal(noise, hole(images, "noise"))
    torch.testing.assert_close(noise.mean(dim=(2, 3)), mean.squeeze(), rtol=0, atol=0.2)
    torch.testing.assert_close(noise.std((2, 3)), images.std((2, 3)), rtol=0.1, atol=0)
    blurred = [
        ndimage.gaussian_filter(
            plane.numpy(), BLUR * 64, mode="mirror", radius=int(BLUR_REACH * 64)
        )
        for plane in images.flatten(0, 1)
    ]
    expected = torch.from_numpy(np.stack(blurred)).view_as(images)
    torch.testing.assert_close(hole(images, "blur"), expected, rtol=0, atol=1e-5)


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
