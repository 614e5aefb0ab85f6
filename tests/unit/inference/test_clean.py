"""Thresholds without labels, and cleaning that is the same at every scale."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import disk, opening, remove_small_objects

from adios_tme.inference.clean import (
    Cleaning,
    counts_at,
    level_of_area,
    levels_of,
    mask_with_stain,
    otsu_level,
    otsu_mask,
)

AT_40X = Cleaning(0.25)


def noise(seed: int) -> NDArray[np.float32]:
    """Blobs a few pixels wide, from 0 to 1."""
    found = ndimage.gaussian_filter(np.random.default_rng(seed).random((80, 80)), 1.5)
    scaled: NDArray[np.float64] = (found - found.min()) / (found.max() - found.min())
    return scaled.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_against_the_steps_of_scikit_image(seed: int) -> None:
    amount = noise(seed)
    smoothed = gaussian(amount, 1.5, mode="reflect")
    expected = opening(smoothed > threshold_otsu(smoothed), disk(1))
    expected = remove_small_objects(expected, max_size=29, connectivity=1)
    found = otsu_mask(amount, AT_40X)
    np.testing.assert_array_equal(found, ndimage.binary_fill_holes(expected))
    assert 0.1 < found.mean() < 0.9


def test_small_objects_go_and_holes_are_filled_but_lumina() -> None:
    mask = np.zeros((80, 80), bool)
    mask[2:7, 2:7] = True  # 25 pixels
    mask[2:8, 20:26] = True  # 36 pixels
    mask[20:70, 20:70] = True
    mask[24:30, 24:30] = False  # a hole
    mask[32:62, 32:62] = False  # a lumen
    mask[75:, 70:] = True  # reaches the border, and encloses nothing
    expected = mask.copy()
    expected[2:7, 2:7] = False
    expected[24:30, 24:30] = True
    found = AT_40X.tidy(mask)
    np.testing.assert_array_equal(found, opening(expected, disk(1)))


def test_the_same_tissue_is_cleaned_alike_at_another_scale() -> None:
    amount = noise(4)
    twice = np.kron(amount, np.ones((2, 2), np.float32))
    fine = Cleaning(0.125)
    found, coarse = otsu_mask(twice, fine), otsu_mask(amount, AT_40X)
    agreement = (found == np.kron(coarse, np.ones((2, 2), bool))).mean()
    assert agreement > 0.95
    assert (found == otsu_mask(twice, AT_40X)).mean() < agreement


def test_a_disc_below_a_pixel_opens_nothing() -> None:
    line = np.zeros((20, 20), bool)
    line[10] = True
    assert Cleaning(0.5).tidy(line).sum() == 20
    assert not Cleaning(0.25).tidy(line).any()


def test_what_is_flat_has_no_threshold() -> None:
    for cleaning in (None, AT_40X):
        assert not otsu_mask(np.full((9, 9), 0.7), cleaning).any()


def test_levels_of_many_images_are_those_of_one_large_image() -> None:
    masks = [noise(seed) ** power for seed, power in ((0, 1), (1, 3))]
    level = otsu_level(np.sum([counts_at(levels_of(mask)) for mask in masks], axis=0))
    expected = threshold_otsu(levels_of(np.stack(masks)), nbins=256) / 256
    assert level == pytest.approx(expected, abs=1 / 100)
    assert min(masks[1].max(), masks[0].max()) > level > 0.1


@pytest.mark.parametrize(("value", "covers"), [(0.0, False), (1.0, True)])
def test_a_flat_mask_is_all_or_nothing(value: float, covers: bool) -> None:
    mask = np.full((5, 5), value)
    assert (mask >= otsu_level(counts_at(levels_of(mask)))).all() == covers


@pytest.mark.parametrize("num_pixels", [0, 1, 37, 6400, 9999])
def test_a_level_has_the_area_that_is_asked_for(num_pixels: int) -> None:
    mask = np.random.default_rng(0).permutation(6400).reshape(80, 80) / 6400
    assert (mask >= level_of_area(mask, num_pixels)).sum() == min(num_pixels, 6400)


def test_a_mask_corrects_what_the_stain_says() -> None:
    noise_HW = np.random.default_rng(0).random((60, 60)).astype(np.float32)
    amount = 0.12 * noise_HW
    amount[5:25, 5:25] = 0.45 + 0.4 * noise_HW[5:25, 5:25]  # a nucleus that both see
    amount[5:25, 35:55] = 0.45 + 0.4 * noise_HW[5:25, 35:55]  # a fibre that the mask knows
    amount[40:50, 10:20] = 0.3  # a pale nucleus, under the threshold
    amount[40:50, 35:45] = 0.3  # as pale, and no nucleus
    soft = np.full((60, 60), 0.05, np.float32)
    soft[5:25, 5:25] = soft[40:50, 10:20] = 0.99
    stained = otsu_mask(amount)
    assert stained[15, 15]
    assert stained[15, 45]
    assert not stained[45].any()
    found = mask_with_stain(soft, amount, stained, AT_40X)
    expected = np.zeros((60, 60), bool)
    expected[5:25, 5:25] = expected[40:50, 10:20] = True
    np.testing.assert_array_equal(found, AT_40X.tidy(expected))


def test_a_mask_that_says_nothing_leaves_the_stain_alone() -> None:
    amount = AT_40X.smooth(noise(6))
    stained = AT_40X.tidy(otsu_mask(amount))
    even = np.full_like(amount, 0.5)
    np.testing.assert_array_equal(mask_with_stain(even, amount, stained, AT_40X), stained)
    for flat in (np.zeros_like(stained), np.ones_like(stained)):
        np.testing.assert_array_equal(mask_with_stain(even, amount, flat, AT_40X), flat)
