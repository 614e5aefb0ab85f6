"""Methods that need no training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.baselines import (
    OtsuOnMacenko,
    everything_foreground,
    kmeans_in_hed,
    otsu_on_haematoxylin,
    stain_vectors,
)
from adios_tme.benchmark.nuclei.pixel_scores import score_pixels
from adios_tme.data.stain import DENSITY
from adios_tme.data.synthetic import render_tissue
from adios_tme.inference.clean import Cleaning

#: Two stains that are not those of Ruifrok and Johnston.
BLUE, PINK = np.array([0.75, 0.6, 0.28]), np.array([0.2, 0.9, 0.39])


def iou(masks: NDArray[np.float32], label: NDArray[np.int32]) -> float:
    return float(score_pixels(masks, label).iou.max())


@pytest.mark.parametrize("method", [otsu_on_haematoxylin, OtsuOnMacenko()])
def test_thresholds_find_clean_nuclei(
    method: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> None:
    for image, label in zip(*render_tissue(6, 64, seed=2), strict=True):
        assert iou(method(image), label) > 0.8
    assert method(np.full((8, 8, 3), 240, np.uint8)).max() == 0


def test_cleaning_makes_a_threshold_stronger_on_noise() -> None:
    images, labels = render_tissue(6, 64, seed=2)
    noise = np.random.default_rng(0).normal(0, 40, images.shape)
    noisy = (images + noise).clip(0, 255).astype(np.uint8)
    for image, label in zip(noisy, labels, strict=True):
        raw = iou(otsu_on_haematoxylin(image), label)
        assert iou(otsu_on_haematoxylin(image, Cleaning(0.25)), label) > raw + 0.05


def test_other_methods_find_what_they_can() -> None:
    images, labels = render_tissue(6, 64, seed=2)
    clusters = kmeans_in_hed(images[:3], 3, seed=0)
    found = []
    for image, label in zip(images, labels, strict=True):
        assert iou(everything_foreground(image), label) == pytest.approx((label > 0).mean())
        drawn = clusters(image)
        assert (drawn.sum(axis=0) == 1).all()
        found.append(iou(drawn, label))
    assert np.mean(found) > 0.5


def stained(amounts_PS: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Pixels (P, 1, 3) of two stains, by Beer and Lambert."""
    density_PC = amounts_PS @ np.stack([BLUE, PINK])
    light_PC: NDArray[np.float64] = 255 * np.exp(-density_PC)
    return light_PC.round().astype(np.uint8)[:, None]


def test_stain_vectors_are_those_that_an_image_was_made_of() -> None:
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0.3, 1.0, (4000, 2)) * rng.permuted([[1.0, 0.0]] * 4000, axis=1)
    found = stain_vectors(DENSITY[stained(amounts).reshape(-1, 3)])
    assert found is not None
    expected = [vector / np.linalg.norm(vector) for vector in (BLUE, PINK)]
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(
    "amounts",
    [
        pytest.param([[0.01, 0.01]] * 4000, id="no stain"),
        pytest.param([[share, 0.0] for share in np.linspace(0.6, 1.6, 4000)], id="one stain"),
        pytest.param([[1.0, 0.0]] * 4000, id="one colour"),
        pytest.param([[1.0, 0.0], [0.0, 1.0]] * 40, id="few pixels"),
    ],
)
def test_images_without_two_stains_are_counted(amounts: list[list[float]]) -> None:
    pixels = stained(np.array(amounts))
    method = OtsuOnMacenko()
    np.testing.assert_array_equal(method(pixels), otsu_on_haematoxylin(pixels))
    assert (method.num_without_stains, method.num_images) == (1, 1)
