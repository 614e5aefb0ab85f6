"""Augmentation: what it may change and what not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms.v2 import functional as torchvision

from adios_tme.config.data import DataConfig
from adios_tme.data.augment import augment, blur_some, jitter_colour, jitter_stain


def images() -> torch.Tensor:
    return torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)


def test_none_leaves_everything() -> None:
    original = images()
    assert augment(original, DataConfig()) is original


def test_geometric_gives_each_image_one_of_eight_positions() -> None:
    original = images()
    turned = augment(original, DataConfig(augment="geometric"))
    positions = [
        turned_back
        for flipped in (original, original.flip(-1))
        for turned_back in (torch.rot90(flipped, k, (-2, -1)) for k in range(4))
    ]
    which = torch.stack([(turned == p).flatten(1).all(1) for p in positions])
    assert which.any(dim=0).all()
    assert which.any(dim=1).all()


@pytest.mark.parametrize("kind", ["stain", "full"])
def test_stain_stays_in_range_and_close(kind: Any) -> None:
    original = torch.full((32, 3, 4, 4), 150, dtype=torch.uint8)
    varied = augment(original, DataConfig(augment=kind))
    assert varied.dtype == torch.float32
    assert 0 <= varied.min() <= varied.max() <= 1
    change = (varied - 150 / 255).abs()
    assert 0.01 < change.amax() < 0.15
    assert varied.flatten(1).std(dim=0).min() > 0  # a draw for each image


def test_stains_are_unmixed_without_another_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    jitter_stain(images())
    monkeypatch.delattr("torch.linalg.inv")
    assert jitter_stain(images()).shape == images().shape


def test_white_stays_nearly_white() -> None:
    white = torch.full((16, 3, 2, 2), 255, dtype=torch.uint8)
    assert jitter_stain(white).min() > 0.88


def test_colours_are_varied_as_torchvision_does(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    # Draws of 0, 0.5 and 1 are factors of 0.6, 1 and 1.4, in another order for each of the three.
    draws = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.5], [0.5, 1.0, 0.0]])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws.view(3, 3, 1, 1, 1))
    varied = jitter_colour(original, 0.4)
    for number, image in enumerate(original.float() / 255):
        brightness, contrast, saturation = (0.6 + 0.8 * draws[:, number]).tolist()
        expected = torchvision.adjust_brightness(image, brightness)
        expected = torchvision.adjust_contrast(expected, contrast)
        expected = torchvision.adjust_saturation(expected, saturation)
        # Its weights of lightness have three digits more.
        torch.testing.assert_close(varied[number], expected, rtol=0, atol=2e-4)


def test_some_images_are_blurred_as_torchvision_does(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.randint(0, 256, (3, 3, 112, 112), dtype=torch.uint8)
    draws = torch.tensor([[0.2, 0.6, 0.4], [0.0, 0.5, 1.0]])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draws.view(2, 3, 1))
    varied = blur_some(original, 0.5)
    unit = original.float() / 255
    assert torch.equal(varied[1], unit[1])
    for number, sigma in ((0, 0.05), (2, 1.0)):  # of pixels: up to 2 at 224
        expected = torchvision.gaussian_blur(unit[number], [7, 7], [sigma, sigma])
        torch.testing.assert_close(varied[number], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["augment_colour", "augment_blur"])
def test_each_image_has_a_draw_of_its_own(kind: str) -> None:
    original = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8).expand(32, -1, -1, -1)
    varied = augment(original, DataConfig(**{kind: 0.5}))
    assert varied.dtype == torch.float32
    assert 0 <= varied.min() <= varied.max() <= 1
    assert len(varied.flatten(1).unique(dim=0)) > 8


@pytest.mark.parametrize("side", [1, 2, 7])
def test_small_images_can_be_blurred(side: int) -> None:
    assert blur_some(torch.full((2, 3, side, side), 128, dtype=torch.uint8), 1.0).std() < 1e-6


@pytest.mark.gpu
def test_nothing_waits_for_the_device() -> None:
    settings = DataConfig(augment="full", augment_colour=0.4, augment_blur=0.5)
    original = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, device="cuda")
    augment(original, settings)  # the stains come to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        varied = augment(original, settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert varied.device == original.device
    assert not torch.equal(varied, original.float() / 255)
