"""Nuclei of a generated slide, whose true places are known: those across borders of blocks.

Shape legend: n images, B windows, N masks, H x W pixels, K true nuclei.
"""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.data import synthetic_slide
from adios_tme.data.slides.slide import Slide
from adios_tme.data.synthetic import render_tissue
from adios_tme.data.synthetic_slide import MPP, write_slide
from adios_tme.inference.clean import Cleaning
from adios_tme.inference.segment.blocks import Grid, blocks_of, cores_of
from adios_tme.inference.segment.nuclei import Chosen, nuclei_by_block
from adios_tme.inference.segment.view import SlideView
from adios_tme.inference.sliding_window import MaskPredictor

SIDE = 1040
#: Blocks of 160 px, whose borders are none of those between the pieces that the slide is made of.
GRID = Grid(step=32, core=160, margin=128)
DARK, PALE = (70, 30, 120), (235, 190, 220)


class Perfect:
    """A mask model that sees the nuclei of such a slide as they are: the rest, and they."""

    img_size = 2 * GRID.step
    normalise = SimpleNamespace(mean=torch.zeros(1))

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        middle = (sum(DARK) + sum(PALE)) / 6 / 255
        nuclei_BHW = torch.sigmoid(50 * (middle - images_BCHW.mean(dim=1)))
        return torch.stack([1 - nuclei_BHW, nuclei_BHW], dim=1)


def evenly_stained(
    num_images: int, size_px: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Tissue that differs from the rendered one in its colours alone: a threshold finds it all."""
    _, labels_nHW = render_tissue(num_images, size_px, seed)
    colours = np.array([PALE, DARK], np.uint8)
    return colours[(labels_nHW > 0).astype(int)], labels_nHW


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_slide, "BLOCK_PX", 256)
        patch.setattr(synthetic_slide, "EDGE_PX", 0.1)  # no nucleus fades into the glass
        patch.setattr(synthetic_slide, "render_tissue", evenly_stained)
        write_slide(path, SIDE)
    return path


def true_nuclei(slide: Path) -> NDArray[np.float64]:
    """X, y and radius in pixels (K, 3), without those so small that smoothing makes them dirt."""
    with slide.with_name("slide_nuclei.csv").open(newline="") as file:
        rows = [
            (float(row["x"]), float(row["y"]), int(row["area"])) for row in csv.DictReader(file)
        ]
    nuclei = np.array(rows)
    nuclei = nuclei[nuclei[:, 2] * MPP**2 > 1.5 * Cleaning(MPP).smallest_um2]
    nuclei[:, 2] = np.sqrt(nuclei[:, 2] / np.pi)
    return nuclei


def found_in(slide: Path) -> list[shapely.Polygon]:
    view = SlideView(Slide(slide), MPP, MPP, GRID.step, None)
    predict = MaskPredictor(cast(Any, Perfect()), windows=True)
    blocks = blocks_of(view, cores_of(view, GRID), GRID, predict)
    return [
        shapely.Polygon(*nucleus.rings[:1], nucleus.rings[1:])
        for nuclei in nuclei_by_block(blocks, view, Chosen(channel=1, threshold=0.5))
        for nucleus in nuclei
    ]


def crosses(nuclei_K3: NDArray[np.float64], every: int) -> NDArray[np.bool_]:
    """Which of them lie across one of the lines that stand so many pixels apart."""
    to_line = np.abs((nuclei_K3[:, :2] + every / 2) % every - every / 2)
    return np.asarray((to_line < nuclei_K3[:, 2:]).any(axis=1))


def test_true_nuclei_across_borders_are_found_once(slide: Path) -> None:
    truth, found = true_nuclei(slide), found_in(slide)
    tree = shapely.STRtree(found)
    pairs = tree.query(shapely.points(truth[:, :2]), predicate="within")
    times_found = np.bincount(pairs[0], minlength=len(truth))
    for every in (GRID.step, GRID.core):  # of windows, and of blocks
        across = times_found[crosses(truth, every)]
        assert len(across) > 80
        assert across.tolist() == [1] * len(across)
    assert times_found.tolist() == [1] * len(truth)
    assert tree.query(found, predicate="overlaps").size == 0  # nor is a part found again
