"""Generated tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label as connected

from adios_tme.data.index_builder import build_index
from adios_tme.data.synthetic import render_tissue, write_sample
from adios_tme.errors import ConfigError


def test_equal_seeds_give_equal_tissue() -> None:
    first, second, other = (render_tissue(2, 64, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != other[0]).any()


def test_each_label_is_one_nucleus_of_its_own() -> None:
    _, labels = render_tissue(4, 128, seed=3)
    for label in labels:
        ids = np.unique(label[label > 0])
        assert len(ids) > 10
        assert connected(label > 0, connectivity=1).max() == connected(label, connectivity=1).max()
        areas = np.bincount(label.ravel())[ids]
        assert areas.max() < np.pi * 16**2
        for number in ids:
            assert connected(label == number, connectivity=2).max() == 1


def test_nuclei_are_blue_and_dark() -> None:
    images, labels = render_tissue(8, 96, seed=0)
    inside, outside = images[labels > 0].mean(axis=0), images[labels == 0].mean(axis=0)
    assert inside.sum() < outside.sum() - 60
    assert inside[2] > inside[0]  # blue over red in nuclei
    assert 0.08 < (labels > 0).mean() < 0.4


def test_stain_differs_between_images() -> None:
    images, _ = render_tissue(16, 64, seed=0)
    assert images.mean(axis=(1, 2)).std(axis=0).min() > 4


def test_a_sample_is_ready_for_training_and_scoring(tmp_path: Path) -> None:
    seen = []
    paths = write_sample(
        tmp_path / "s",
        num_slides=2,
        patches_per_slide=3,
        size_px=448,
        num_labelled=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    index = build_index(paths.patches)
    assert (len(index), index.num_slides()) == (6, 2)
    assert index.patch(1).coordinates == (448, 0)
    label = np.asarray(Image.open(paths.nuclei / "labels" / "tissue_001.png"))
    assert label.dtype == np.uint16
    assert seen[-1] == (8, 8)


def test_a_full_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        write_sample(tmp_path)
