"""Before the first step."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from adios_tme.data.index_builder import build_index
from adios_tme.data.mixture import PatchMixture
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


def test_going_on_with_other_patches_is_refused(tmp_path: Path) -> None:
    data, out = make_dataset(tmp_path / "data"), tmp_path / "run"

    def log_of(total_iterations: int, data_path: Path = data, **flags: bool) -> str:
        length = {"total_iterations": total_iterations, "warmup_iterations": 0}
        before = len((out / "train.log").read_text()) if out.exists() else 0
        run_training(tiny_config(data_path, out, **length, **flags))
        return (out / "train.log").read_text()[before:]

    assert "other patches" not in log_of(1)
    # Copied elsewhere, they are the same.
    moved = tmp_path / "moved"
    shutil.copytree(data, moved, ignore=shutil.ignore_patterns("*.safetensors"))
    for archive in moved.glob("*.zip"):
        os.utime(archive, (1, 1))
    assert "other patches" not in log_of(2, moved)
    make_archive(moved / "slide_001.zip", num_patches=2)
    before = (out / "config.yaml").read_bytes()
    counts = "(12 in 3 archives or folders then, 10 in 3 now)"
    with pytest.raises(ConfigError, match=r"has seen other patches than these") as refused:
        log_of(3, moved)
    assert counts in str(refused.value)
    assert "--accept-new-data" in str(refused.value)
    assert (out / "config.yaml").read_bytes() == before  # the settings of what was trained
    told = log_of(3, moved, accept_new_data=True)
    assert told.count(f"WARNING The run goes on with other patches {counts}") == 1
    assert "other patches" not in log_of(4, moved)


def test_another_schedule_is_told(tmp_path: Path) -> None:
    data, out = make_dataset(tmp_path / "data"), tmp_path / "run"
    run_training(tiny_config(data, out, warmup_iterations=0))
    run_training(tiny_config(data, out, warmup_iterations=0))
    log = (out / "train.log").read_text()
    assert "Another schedule" not in log
    assert "The run is complete at iteration 4, on 12 patches." in log
    flags = {"lr": 2e-3, "total_iterations": 8, "warmup_iterations": 0, "final_temp": 0.2}
    run_training(tiny_config(data, out, **flags))
    # Half of the way by a cosine from 0.002 to 0.000001 is 0.0010005.
    assert (
        "Another schedule from here on (lr 0.001 -> 0.002; total_iterations 4 -> 8; final_temp "
        "0.05 -> 0.2): the student's learning rate is 0.001 now and 1e-06 at iteration 8, the "
        "temperature 0.2 and 0.2."
    ) in (out / "train.log").read_text()


def test_an_archive_of_as_many_other_patches_is_told(tmp_path: Path) -> None:
    before, same, other = (
        content_of(make_archive(tmp_path / name / "slide.zip", size_px=size_px).parent)
        for name, size_px in (("a", 32), ("b", 32), ("c", 40))
    )
    assert before == same != other


def test_a_folder_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    """Its own size is the file system's: that of one which held more files once stays larger."""
    contents = []
    for name, num_removed in (("a", 0), ("b", 400)):
        folder = tmp_path / name / "slide"
        folder.mkdir(parents=True)
        passing = [folder / f"{'long' * 40}_{number}" for number in range(num_removed)]
        for path in passing:
            path.touch()
        for path in passing:
            path.unlink()
        for number in range(3):
            (folder / f"p_448_x{number}_y0.png").write_bytes(png(8, seed=number))
        contents.append(content_of(tmp_path / name))
    assert contents[0] == contents[1]


def content_of(folder: Path) -> dict[str, Any]:
    return PatchMixture([build_index(folder)]).content()
