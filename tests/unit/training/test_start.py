"""Before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adios_tme.distributed.world import World
from adios_tme.errors import ConfigError
from adios_tme.run_folder.checkpoints import read_checkpoint
from adios_tme.training.loop import run_training
from adios_tme.training.start import open_index
from tests.factories import make_dataset, tiny_config


def test_one_image_a_pass_is_enough_where_passes_make_a_batch(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    shape = {
        "batch_size_per_gpu": 1,
        "global_batch_size": 4,
        "total_iterations": 1,
        "warmup_iterations": 0,
    }
    run_training(tiny_config(tmp_path / "data", tmp_path / "run", **shape))
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pth")["samples_seen"] == 16


def test_a_batch_of_one_image_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "data", tmp_path / "run", batch_size_per_gpu=1)
    with pytest.raises(ConfigError, match="leaves no other image to compare with"):
        open_index(config, World(0, 1, 0, 1, torch.device("cpu")))
