"""Before the first step."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import torch

from adios_tme.distributed.world import World
from adios_tme.errors import ConfigError, DataError
from adios_tme.run_folder.checkpoints import read_checkpoint
from adios_tme.training.loop import run_training
from adios_tme.training.start import open_index
from tests.factories import make_archive, make_dataset, png, tiny_config


def test_one_image_a_pass_is_enough_where_passes_make_a_batch(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    shape = {
        "batch_size_per_gpu": 1,
        "global_batch_size": 4,
        "total_iterations": 1,
        "warmup_iterations": 0,
    }
    run_training(tiny_config(tmp_path / "data", tmp_path / "run", **shape))
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pth")["samples_seen"] == 4


def test_a_batch_of_one_image_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "data", tmp_path / "run", batch_size_per_gpu=1)
    with pytest.raises(ConfigError, match="leaves no other image to compare with"):
        open_index(config, World(0, 1, 0, 1, torch.device("cpu")))


def test_one_patch_alone_is_refused(tmp_path: Path) -> None:
    make_archive(tmp_path / "data" / "a.zip", num_patches=1)
    with pytest.raises(DataError, match="one patch alone leaves no other image to compare with"):
        run_training(tiny_config(tmp_path / "data", tmp_path / "run"))


def test_fewer_patches_than_a_batch_and_what_was_left_out_are_in_the_log(tmp_path: Path) -> None:
    make_archive(tmp_path / "data" / "a.zip", num_patches=3)
    (tmp_path / "data" / "overview.png").write_bytes(png(8))
    (tmp_path / "data" / "caf\udce9.txt").touch()
    config = tiny_config(tmp_path / "data", tmp_path / "data" / "run", total_iterations=2)
    run_training(config)
    log = (tmp_path / "data" / "run" / "train.log").read_text(encoding="utf-8")
    assert "WARNING 3 patches are fewer than a global batch of 4" in log
    assert "WARNING Took 3 of 4 images." in log
    assert "1 images whose names do not follow the rule (overview.png)" in log
    assert r"1 files that are not images (caf\udce9.txt)" in log


def test_damage_is_counted_over_all_that_was_looked_at(tmp_path: Path) -> None:
    contents = {f"p{n}_448_x{n}_y0.png": png(8) if n % 2 else b"no image" for n in range(40)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    config = tiny_config(tmp_path, tmp_path / "run", total_iterations=12, warmup_iterations=0)
    with pytest.raises(DataError) as caught:
        run_training(config)
    found = re.match(r"(\d+) of (\d+) patches could not be read", str(caught.value))
    assert found
    assert 0.3 < int(found[1]) / int(found[2]) < 0.7
