"""Augmentation: what it may change and what not."""

from __future__ import annotations

import pytest
import torch

from adios_tme.data.augment import augment, jitter_stain


def images() -> torch.Tensor:
    return torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)


def test_none_leaves_everything() -> None:
    original = images()
    assert augment(original, "none") is original


def test_geometric_gives_each_image_one_of_eight_positions() -> None:
    original = images()
    turned = augment(original, "geometric")
    positions = [
        turned_back
        for flipped in (original, original.flip(-1))
        for turned_back in (torch.rot90(flipped, k, (-2, -1)) for k in range(4))
    ]
    which = torch.stack([(turned == p).flatten(1).all(1) for p in positions])
    assert which.any(dim=0).all()
    assert which.any(dim=1).all()


@pytest.mark.parametrize("kind", ["stain", "full"])
def test_stain_stays_in_range_and_close(kind: str) -> None:
    original = torch.full((32, 3, 4, 4), 150, dtype=torch.uint8)
    varied = augment(original, kind)  # type: ignore[arg-type]
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
