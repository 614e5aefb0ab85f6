"""Passes of images: what is augmented, and how many views there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adios_tme.config.train import TrainConfig
from adios_tme.data.index_builder import build_index
from adios_tme.data.mixture import PatchMixture
from adios_tme.distributed.world import World
from adios_tme.errors import ConfigError
from adios_tme.training.feed import Feed, Pass
from tests.factories import make_dataset, tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))


def first_pass(folder: Path, **flags: Any) -> Pass:
    """Of a feed whose draws are the same every time."""
    if not (folder / "data").exists():
        make_dataset(folder / "data")
    index = PatchMixture([build_index(folder / "data")])
    config = tiny_config(folder / "data", folder / "run", num_workers=0, **flags)
    torch.manual_seed(0)
    with Feed(config.data, config.run, WORLD, index, batch_size=4, first_sample=0) as feed:
        return next(iter(feed))


def test_one_view_is_compared_with_itself(tmp_path: Path) -> None:
    fed = first_pass(tmp_path, augment="full")
    assert fed.clean is fed.images


def test_two_views_are_two_draws_of_the_same_patches(tmp_path: Path) -> None:
    plain = first_pass(tmp_path).images
    fed = first_pass(tmp_path, augment="geometric", views="two")
    assert not torch.equal(fed.images, fed.clean)
    for view in (fed.images, fed.clean):  # flips and turns keep every pixel
        torch.testing.assert_close(view.flatten(1).sort().values, plain.flatten(1).sort().values)


def test_crops_show_a_part_as_large_as_the_whole(tmp_path: Path) -> None:
    plain = first_pass(tmp_path).images
    fed = first_pass(tmp_path, augment_crop=0.3)
    assert fed.images.shape == plain.shape
    assert not torch.allclose(fed.images, plain, atol=0.1)
    low, high = plain.amin(dim=(1, 2, 3)) - 1e-5, plain.amax(dim=(1, 2, 3)) + 1e-5
    assert (fed.images.amin(dim=(1, 2, 3)) >= low).all()
    assert (fed.images.amax(dim=(1, 2, 3)) <= high).all()
    nearly = first_pass(tmp_path, augment_crop=0.999).images
    torch.testing.assert_close(nearly.mean(), plain.mean(), rtol=0, atol=0.02)


def test_two_views_of_nothing_that_varies_are_refused() -> None:
    with pytest.raises(ConfigError, match="views=two would show the same image twice"):
        TrainConfig(data_path=["patches"], views="two")
