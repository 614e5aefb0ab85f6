"""TensorBoard's files, read back by its own reader."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from adios_tme.run_folder.layout import checkpoint_name
from adios_tme.training.loop import run_training
from tests.factories import make_dataset, tiny_config

reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")


def read_back(run: Path) -> Any:
    events = reader.EventAccumulator(str(run / "tensorboard"))
    return events.Reload()


def test_a_run_resumed_from_an_older_checkpoint_has_each_step_once(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    flags = {"trackers": ("tensorboard",), "viz_freq": 2, "keep_checkpoints": 1}
    run_training(tiny_config(tmp_path / "data", run, **flags))
    before = {each.step: each.value for each in read_back(run).Scalars("mask_coverage/1")}
    for newest in ("checkpoint.pth", checkpoint_name(4)):
        (run / newest).unlink()
    run_training(tiny_config(tmp_path / "data", run, **flags))

    events = read_back(run)
    after = [(each.step, each.value) for each in events.Scalars("mask_coverage/1")]
    assert after == sorted(before.items())
    assert [each.step for each in events.Images("masks")] == [2, 4]
    assert len(list((run / "tensorboard").iterdir())) == 2


def test_settings_numbers_and_pictures_are_there(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run = tmp_path / "run"
    run_training(tiny_config(tmp_path / "data", run, trackers=("tensorboard",), viz_freq=4))
    events = read_back(run)
    assert {"student_loss", "mask_coverage/3", "lr"} <= set(events.Tags()["scalars"])
    (settings,) = events.Tensors("settings/text_summary")
    assert b'"patch_size": 8' in settings.tensor_proto.string_val[0]
    (picture,) = events.Images("masks")
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    assert picture.height > 100
