"""Flags made from settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from adios_tme.cli.options import described, settings_command
from adios_tme.config.data import DataConfig
from adios_tme.config.presets import find_preset
from adios_tme.config.train import TrainConfig
from adios_tme.errors import ConfigError


@pytest.fixture
def seen() -> list[TrainConfig]:
    return []


@pytest.fixture
def app(seen: list[TrainConfig]) -> typer.Typer:
    app = typer.Typer()
    settings_command(app, "train", TrainConfig)(seen.append)
    return app


def given(app: typer.Typer, seen: list[TrainConfig], *flags: str) -> TrainConfig:
    result = CliRunner().invoke(app, list(flags), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[-1]


@pytest.mark.parametrize("flag", ["--batch-size-per-gpu", "--batch_size_per_gpu"])
def test_flags_take_dashes_or_underscores(
    flag: str, app: typer.Typer, seen: list[TrainConfig]
) -> None:
    assert given(app, seen, "--demo", flag, "7").data.batch_size_per_gpu == 7
    assert given(app, seen, "--demo", f"{flag}=8").data.batch_size_per_gpu == 8


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        (["--use_lars", "True"], True),
        (["--use-lars", "--optimizer-type", "sgd"], True),
        (["--use-lars=false"], False),
        ([], False),
    ],
)
def test_a_truth_flag_stands_alone_or_takes_a_word(
    flags: list[str], value: bool, app: typer.Typer, seen: list[TrainConfig]
) -> None:
    sgd = ["--optimizer_type", "sgd"]
    assert given(app, seen, "--demo", *sgd, *flags).optim.use_lars is value


def test_flags_win_over_the_file_and_the_file_over_the_demo(
    app: typer.Typer, seen: list[TrainConfig], tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("optim: {lr: 0.5, total_iterations: 77}\n")
    config = given(app, seen, "--demo", "--config", str(path), "--lr", "0.25")
    assert (config.optim.lr, config.optim.total_iterations) == (0.25, 77)
    assert config.data.img_size == 64  # from the demo


@pytest.mark.parametrize("preset", ["stable", "steady"])
def test_a_preset_lies_under_what_is_given(
    preset: str, app: typer.Typer, seen: list[TrainConfig], tmp_path: Path
) -> None:
    stable = find_preset("stable").settings["mask"]["mask_ema"]
    assert given(app, seen, "--data-path", "x", "--preset", preset).mask.mask_ema == stable
    assert given(app, seen, "--demo", "--preset", preset).mask.mask_model_type == "adios"
    path = tmp_path / "run.yaml"
    path.write_text(f"preset: {preset}\ndata_path: x\n")
    assert given(app, seen, "--config", str(path)).mask.mask_ema == stable
    assert given(app, seen, "--config", str(path), "--mask-ema", "0").mask.mask_ema == 0
    in_python = TrainConfig(preset=preset, data=DataConfig(data_path=Path("x"), img_size=96))
    assert (in_python.mask.mask_ema, in_python.data.img_size) == (stable, 96)


def test_python_takes_the_names_of_flags_too() -> None:
    flat: dict[str, Any] = {"data_path": ["x"], "lr": 0.25}
    config = TrainConfig(**flat, preset="laptop", data=DataConfig(img_size=96))
    assert (config.optim.lr, config.data.img_size, config.model.embed_dim) == (0.25, 96, 96)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lrr": 1}, "lrr: unknown setting. Did you mean optim.lr?"),
        ({"lr": -1}, "optim.lr: expected more than 0.0, got -1."),
        ({"num_heads": 5}, "model: num_heads=5 does not divide embed_dim=768."),
    ],
)
def test_python_is_answered_in_our_words(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        TrainConfig(data_path="x", **given)
    assert str(told.value).startswith(message)


def test_values_with_several_parts(app: typer.Typer, seen: list[TrainConfig]) -> None:
    config = given(app, seen, "--demo", "--mean", "0.1", "0.2", "0.3")
    assert config.data.mean == (0.1, 0.2, 0.3)


def test_choices_of_which_several_are_taken(app: typer.Typer, seen: list[TrainConfig]) -> None:
    flags = ["--trackers", "wandb", "--trackers=tensorboard"]
    assert given(app, seen, "--demo", *flags).tracking.trackers == ("wandb", "tensorboard")
    (shown,) = (each for each in described(TrainConfig) if each.name == "--trackers")
    assert shown.kind == "<choice>"
    assert shown.text.endswith("[tensorboard, wandb, mlflow, trackio]")


@pytest.mark.parametrize(
    "flags",
    [
        ["--area-targets", "0.2", "0.3", "0.5"],
        ["--area_targets", "0.2", "0.3", "--area-targets", "0.5"],
        ["--area-targets", "0.2", "--area-targets=0.3", "--area-targets", "0.5"],
    ],
)
def test_a_list_of_numbers_stands_in_a_row_or_one_by_one(
    flags: list[str], app: typer.Typer, seen: list[TrainConfig]
) -> None:
    config = given(app, seen, "--demo", *flags, "--lr", "0.25")
    assert config.loss.area_targets == (0.2, 0.3, 0.5)
    assert config.optim.lr == 0.25
    assert given(app, seen, "--demo").loss.area_targets is None
    assert CliRunner().invoke(app, ["--demo", "--area-targets", "--lr", "0.1"]).exit_code == 2


def test_an_unknown_flag_names_the_nearest(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--demo", "--totl-iterations", "3"])
    assert result.exit_code == 2
    assert "--total-iterations" in result.output


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--batch-size", {"--batch-size-per-gpu", "--global-batch-size"}),
        ("--epochs", {"--total-iterations"}),
        ("--learning_rate", {"--lr"}),
    ],
)
def test_names_of_other_trainers_are_known(app: typer.Typer, given: str, meant: set[str]) -> None:
    result = CliRunner().invoke(app, ["--demo", given, "3"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    (named,) = re.findall(r"Possible options: (.*)\)", result.output)
    assert set(named.split(", ")) == meant


def test_help_shows_choices_and_defaults(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["--help-all"], env={"COLUMNS": "160"}).output
    assert "[vit_unet, adios]" in text
    assert "[default: vit_unet]" in text
    assert "--data-path" in text


def test_a_broken_rule_is_a_config_error(app: typer.Typer) -> None:
    with pytest.raises(ConfigError, match="does not divide"):
        CliRunner().invoke(app, ["--demo", "--num_heads", "5"], catch_exceptions=False)
