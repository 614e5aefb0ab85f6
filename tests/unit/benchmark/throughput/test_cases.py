"""Which cases a sweep asks for, and which it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adios_tme.benchmark.throughput.cases import cases
from adios_tme.errors import ConfigError
from tests.factories import speed_settings


def test_a_sweep_is_every_combination() -> None:
    found = cases(speed_settings(sweep=("batch_size=2,8", "precision=fp32,bf16")))
    pairs = [(case.config.data.batch_size_per_gpu, case.config.compute.precision) for case in found]
    assert pairs == [(2, "fp32"), (2, "bf16"), (8, "fp32"), (8, "bf16")]
    assert found[1].settings["precision"] == "bf16"
    (one,) = cases(speed_settings())
    assert one.config.model.embed_dim == 64
    (other,) = cases(speed_settings(sweep=("num-masks=5",)))
    assert other.settings["num_masks"] == 5


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("batch_size", "expected name=value,value"),
        ("colour=red", "colour is no setting of a run"),
        ("num_mask=2,3", r"no setting of a run\. Did you mean num_masks\?"),
        ("epochs=2", r"no setting of a run\. Did you mean total_iterations\?"),
        ("precision=fp64", "expected one of"),
        ("patch_size_px=64,128", "does not depend on patch_size_px"),
        ("output_dir=a,b", "does not depend on output_dir"),
        ("demo=true", "does not depend on demo"),
        ("device=cpu", "does not depend on device"),
        ("global_batch_size=8", "does not depend on global_batch_size"),
        ("mask_source=learned,random", "mask_source=random: only a step that learns its masks"),
        ("mask_update_freq=1,2", "mask_update_freq=2: every step that is measured updates"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(sweep: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cases(speed_settings(sweep=(sweep,)))


def test_a_setting_is_swept_once() -> None:
    with pytest.raises(ConfigError, match="depth is given twice"):
        cases(speed_settings(sweep=("depth=1", "depth=2")))


@pytest.mark.parametrize("flags", [{"mask_update_freq": 2}, {"mask_source": "random"}])
def test_steps_that_are_not_measured_are_refused_as_flags(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"mask\.mask_"):
        cases(speed_settings(**flags))


@pytest.mark.parametrize("sweep", ["objective=simclr,byol", "variant=adios,adios_s"])
def test_baselines_are_of_one_objective_and_variant(sweep: str) -> None:
    assert len(cases(speed_settings(sweep=(sweep,)))) == 2
    with pytest.raises(ConfigError, match=r"which do other work\. Drop --baseline\.$"):
        cases(speed_settings(sweep=(sweep,), baseline="naive"))


def test_a_preset_stands_for_what_it_sets() -> None:
    (case,) = cases(speed_settings(sweep=("preset=steady",)))
    assert case.settings["preset"] == "steady"
    assert case.work["mask.mask_ema"] == 0.99
    (same,) = cases(speed_settings(sweep=("preset=steady",), mask_ema=0.5))
    assert same.work["mask.mask_ema"] == 0.5


def test_cases_are_told_as_json_takes_them(tmp_path: Path) -> None:
    encoder = {"mask_model_type": "vit_unet", "mask_encoder_checkpoint": tmp_path}
    (case,) = cases(speed_settings(**encoder, sweep=(f"mask_encoder_checkpoint={tmp_path}",)))
    assert case.settings["mask_encoder_checkpoint"] == str(tmp_path)
    assert json.loads(json.dumps(case.work)) == case.work


@pytest.mark.parametrize(
    "flags",
    [
        {"patch_size": 8},
        {"depth": 3},
        {"drop_path_rate": 0.0},
        {"grad_checkpointing": True},
        {"mask_forward": "separate"},
        {"crops_per_mask": 1},
        {"img_size": 64},
        {"batch_size": 8},
        {"sweep": ("optimizer_type=sgd",)},
    ],
)
def test_whatever_shapes_the_step_is_work(flags: dict[str, Any]) -> None:
    (usual,), (other,) = cases(speed_settings()), cases(speed_settings(**flags))
    assert len(dict(set(usual.work.items()) ^ set(other.work.items()))) == 1


def test_where_the_step_is_done_is_no_work() -> None:
    (usual,), (other,) = cases(speed_settings()), cases(speed_settings(device="auto"))
    assert usual.work == other.work
