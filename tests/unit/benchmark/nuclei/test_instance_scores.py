"""Nuclei drawn by hand, with scores worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest

from adios_tme.benchmark.nuclei.instance_scores import compare
from adios_tme.benchmark.nuclei.pixel_scores import BlindChoice, Choice, Chosen, score_image
from adios_tme.data.synthetic import render_tissue
from adios_tme.inference.nuclei import split_nuclei


def squares(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Label map of rectangles (top, left, height, width)."""
    labels = np.zeros((60, 60), dtype=np.int32)
    for number, (top, left, height, width) in enumerate(boxes, start=1):
        labels[top : top + height, left : left + width] = number
    return labels


TWO_TOUCHING = squares((10, 10, 10, 10), (10, 20, 10, 10))


@pytest.mark.parametrize(
    ("truth", "found", "aji", "dq", "sq"),
    [
        # Two nuclei merged to one: IoU with the first is 100/200, no match, one left alone (100).
        (TWO_TOUCHING, squares((10, 10, 10, 20)), 200 / 400, 0.0, 0.0),
        # One nucleus of 100 split in 60 and 40: 60/100 matches, 40 are left over.
        (
            squares((10, 10, 10, 10)),
            squares((10, 10, 6, 10), (16, 10, 4, 10)),
            60 / 140,
            2 / 3,
            0.6,
        ),
        # One of two missed.
        (TWO_TOUCHING, squares((10, 10, 10, 10)), 100 / 200, 2 / 3, 1.0),
        # One invented.
        (squares((10, 10, 10, 10)), TWO_TOUCHING, 100 / 200, 2 / 3, 1.0),
        # Shifted by two of ten columns: 80 shared of 120.
        (squares((10, 10, 10, 10)), squares((10, 12, 10, 10)), 80 / 120, 1.0, 80 / 120),
    ],
)
def test_by_hand(truth: np.ndarray, found: np.ndarray, aji: float, dq: float, sq: float) -> None:
    scores = compare(truth, found)
    assert scores == pytest.approx((aji, dq, sq, dq * sq))


def test_the_truth_scores_one_and_nothing_scores_zero() -> None:
    nothing = squares()
    assert compare(TWO_TOUCHING, TWO_TOUCHING) == (1, 1, 1, 1)
    assert compare(TWO_TOUCHING, nothing) == (0, 0, 0, 0)
    assert compare(nothing, TWO_TOUCHING) == (0, 0, 0, 0)
    assert compare(nothing, nothing) == (1, 1, 1, 1)


def test_true_labels_through_the_whole_scorer() -> None:
    _, labels = render_tissue(1, 128, seed=4)
    truth = labels[0].astype(np.int32)
    mask = (truth > 0).astype(np.float32)[None]
    grey, chosen = np.zeros((128, 128, 3), np.uint8), Chosen(Choice(0, 3), BlindChoice(0, 0.3, ()))
    scores = score_image(mask, grey, truth, chosen)
    for name in ("iou", "dice", "precision", "recall"):
        assert getattr(scores.pixels, name).min() == 1
    assert scores.pixels.auprc[0] == 1
    for found in scores.chosen.values():
        assert (found.iou, found.dice) == (1, 1)
        assert found.nuclei.aji > 0.99  # generated nuclei do not touch; slivers at the edge go
    empty = score_image(np.zeros_like(mask), grey, truth, chosen)
    assert empty.pixels.iou.max() == empty.pixels.dice.max() == empty.pixels.recall.max() == 0
    assert empty.oracle == (0, 0, 0, 0)
    assert [found.nuclei for found in empty.chosen.values()] == [(0, 0, 0, 0)] * 2


def test_touching_discs_are_split_and_specks_are_dropped() -> None:
    y, x = np.mgrid[:60, :60]
    discs = ((y - 30) ** 2 + (x - 20) ** 2 < 100) | ((y - 30) ** 2 + (x - 37) ** 2 < 100)
    discs[2:4, 2:5] = True  # six pixels
    labels = split_nuclei(discs)
    assert labels.max() == 2
    assert labels[30, 20] != labels[30, 37] != 0
    assert labels[2, 2] == 0
    assert ((labels > 0) == discs)[10:].all()


def test_a_small_nucleus_beside_a_large_one_is_kept() -> None:
    y, x = np.mgrid[:40, :40]
    mask = (y - 20) ** 2 + (x - 14) ** 2 < 100
    mask[18:23, 25:29] = True  # twenty pixels, lower than the disc that is near
    labels = split_nuclei(mask)
    assert labels.max() == 2
    assert (labels > 0).sum() == mask.sum()
    assert np.unique(labels[18:23, 25:29]).size == 1


def test_a_mask_that_fills_the_image_is_one_nucleus_or_none() -> None:
    assert split_nuclei(np.zeros((20, 20), dtype=bool)).max() == 0
    assert split_nuclei(np.ones((20, 20), dtype=bool)).max() == 1


def test_generated_nuclei_come_back_apart() -> None:
    _, labels = render_tissue(3, 256, seed=0)
    for label in labels.astype(np.int32):
        assert compare(label, split_nuclei(label > 0)).pq > 0.97
