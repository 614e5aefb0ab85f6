"""Presets: each is whole, builds a run, and says what is known of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adios_tme.benchmark.throughput.cost import StepCost
from adios_tme.config.load import build, read_yaml, write_yaml
from adios_tme.config.presets import Preset, find_preset, presets
from adios_tme.config.train import TrainConfig
from adios_tme.errors import ConfigError
from tests.factories import run_command

ROOT = Path(__file__).parents[3]
DATA = {"data": {"data_path": ["patches"]}}


def test_the_presets_that_ship() -> None:
    assert [preset.name for preset in presets()] == [
        "adios-original-imagenet100s",
        "adios-tme-unet",
        "adios-tme-vit",
        "laptop",
        "single-gpu",
        "slurm-8gpu",
        "stable",
        "stain-prior",
    ]


@pytest.mark.parametrize("preset", list(presets()), ids=lambda preset: preset.name)
def test_every_preset_builds_a_run(preset: Preset) -> None:
    config = build(TrainConfig, DATA, {"preset": preset.name})
    for section, settings in preset.settings.items():
        for name, value in settings.items():
            found = getattr(getattr(config, section), name)
            assert found == (tuple(value) if isinstance(value, list) else value), name
    assert StepCost.of(config).peak_bytes(1) > 0  # both networks built, and a step counted
    assert f"--preset {preset.name} " in preset.command


def test_the_laptop_preset_fits_a_laptop() -> None:
    config = build(TrainConfig, DATA, {"preset": "laptop"})
    assert StepCost.of(config).peak_bytes(config.data.batch_size_per_gpu) < 2**30


@pytest.mark.parametrize("name", ["single-gpu", "slurm-8gpu"])
def test_hours_in_the_documents_are_those_of_the_cost_model(name: str) -> None:
    config = build(TrainConfig, DATA, {"preset": name})
    operations = (
        config.optim.total_iterations * config.data.batch_size_per_gpu * StepCost.of(config).flops
    )
    a100, h100 = (f"{operations / (0.45 * rated) / 3600:.1f}" for rated in (312e12, 989e12))
    (row,) = re.findall(rf"^.*`--preset {name}`.*$", (ROOT / "docs/machines.txt").read_text(), re.M)
    assert re.search(rf": {a100} hours on (an )?A100s?, {h100} on (an )?H100", row)
    assert f"{h100} to {a100} hours" in (ROOT / "README.md").read_text()


def test_the_defaults_are_a_preset() -> None:
    defaults = build(TrainConfig, DATA)
    preset = build(TrainConfig, DATA, {"preset": "adios-tme-vit"})
    assert preset == defaults.model_copy(update={"preset": "adios-tme-vit"})


def test_a_file_is_a_preset_and_is_not_needed_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 0.25\nmask:\n  num_masks: 5\n")
    config = build(TrainConfig, DATA, {"preset": str(path), "mask": {"num_masks": 4}})
    assert (config.optim.lr, config.mask.num_masks, config.preset) == (0.25, 4, None)
    write_yaml(config, tmp_path / "config.yaml")
    path.unlink()
    assert build(TrainConfig, read_yaml(tmp_path / "config.yaml", TrainConfig)) == config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("laptp", "preset=laptp: no such preset or file. Did you mean laptop? Use one of"),
        ("none/mine.yaml", "none/mine.yaml: cannot be read (No such file or directory)."),
    ],
)
def test_what_is_no_preset_is_told(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as told:
        build(TrainConfig, DATA, {"preset": given})
    assert message in str(told.value)
    assert told.value.exit_code == 2


def test_the_command_lists_them_and_prints_one(tmp_path: Path) -> None:
    listed = run_command("presets").stdout
    assert all(f"{preset.name}\n  {preset.summary}" in listed for preset in presets())
    (tmp_path / "laptop.yaml").write_text(run_command("presets", "laptop").stdout)
    settings = read_yaml(tmp_path / "laptop.yaml", TrainConfig)
    assert settings == find_preset("laptop").settings
    refused = run_command("presets", "laptp")
    assert refused.returncode == 2
    assert "Did you mean laptop?" in refused.stderr
