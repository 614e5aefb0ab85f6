"""What BYOL and SimSiam carry through a run: saved, resumed, restarted, left out of exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves_with_path

from adios_tme import load_student
from adios_tme.config.load import merge
from adios_tme.config.train import DEMO, TrainConfig
from adios_tme.distributed.world import World
from adios_tme.errors import ConfigError
from adios_tme.objectives.byol import BYOL
from adios_tme.run_folder import health
from adios_tme.run_folder.checkpoints import read_checkpoint
from adios_tme.training.loop import run_training
from adios_tme.training.start import take_weights
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import make_dataset, tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))
KINDS = ["byol", "simsiam"]
TINY: dict[str, Any] = {"predictor_hidden_dim": 16, "warmup_iterations": 0}


def make_run(folder: Path, **flags: Any) -> Run:
    return Run.build(tiny_config(folder, folder, **TINY | flags), WORLD)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in network.parameters()])


@pytest.mark.parametrize("name", KINDS)
def test_a_run_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    flags = TINY | {"objective": name, "drop_path_rate": 0.2, "crops_per_mask": 1, "log_freq": 4}
    for folder in ("straight", "resumed"):
        run_training(tiny_config(tmp_path / "data", tmp_path / folder, **flags))
    for path in (tmp_path / "resumed").glob("checkpoint*.pth"):
        if "00000002" not in path.name:
            path.unlink()
    run_training(tiny_config(tmp_path / "data", tmp_path / "resumed", **flags))
    straight, resumed = (
        dict(tree_leaves_with_path(read_checkpoint(tmp_path / folder / "checkpoint.pth")))
        for folder in ("straight", "resumed")
    )
    assert straight.keys() == resumed.keys()
    tensors = {path: value for path, value in straight.items() if isinstance(value, Tensor)}
    assert all(torch.equal(value, resumed[path]) for path, value in tensors.items())
    saved = read_checkpoint(tmp_path / "straight" / "checkpoint.pth")["objective"]
    assert "predictor.0.weight" in saved
    assert any(key.startswith("teacher.encoder.") for key in saved) is (name == "byol")


def test_a_student_is_loaded_without_its_teacher(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    config = tiny_config(tmp_path / "data", tmp_path / "run", objective="byol", **TINY)
    run_training(config)
    saved = read_checkpoint(tmp_path / "run" / "checkpoint.pth")
    loaded = load_student(tmp_path / "run").state_dict()
    assert loaded.keys() == saved["student"].keys()
    assert all(torch.equal(loaded[name], value) for name, value in saved["student"].items())


def test_a_run_says_what_befalls_its_student_and_mask_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ALIKE", 100.0)
    make_dataset(tmp_path / "data")
    flags = TINY | {"objective": "byol", "train_mask_until": 0.4, "total_iterations": 7}
    flags |= {"stain_weight": 1.0, "stain_until": 0.3}
    run_training(tiny_config(tmp_path / "data", tmp_path / "run", **flags))
    said = (tmp_path / "run" / "train.log").read_text()
    assert said.count("The student has collapsed") == 1
    assert "The mask model is frozen after 3 of 7 updates" in said
    assert "The prior from the stain ends after 3 of 7 updates" in said
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "temperature" not in text
    lines = map(json.loads, text.splitlines())
    assert ["mask_loss" in line for line in lines if "student_loss" in line] == [True] * 3 + (
        [False] * 4
    )


def test_another_objective_does_not_resume_it(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run_training(tiny_config(tmp_path / "data", tmp_path / "run"))
    with pytest.raises(ConfigError, match="objective is simclr, asked byol"):
        run_training(tiny_config(tmp_path / "data", tmp_path / "run", objective="byol", **TINY))


def test_the_teacher_is_a_copy_that_nothing_trains(tmp_path: Path) -> None:
    run = make_run(tmp_path, objective="byol", drop_path_rate=0.5)
    assert isinstance(run.objective, BYOL)
    teacher = run.objective.teacher
    assert torch.equal(flat(teacher), flat(run.bare_student))
    assert run.objective.training
    assert not any(module.training for module in teacher.modules())
    train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    assert all(weight.grad is None for weight in teacher.parameters())
    trained = {
        id(weight)
        for group in run.update_student.optimizer.param_groups
        for weight in group["params"]
    }
    assert trained.isdisjoint(map(id, teacher.parameters()))
    assert trained >= set(map(id, run.objective.predictor.parameters()))


def test_the_teacher_begins_with_weights_from_elsewhere(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run_training(tiny_config(tmp_path / "data", tmp_path / "other"))
    run = make_run(tmp_path, objective="byol")
    assert isinstance(run.objective, BYOL)
    first = flat(run.objective.teacher)
    take_weights(run, str(tmp_path / "other"))
    assert torch.equal(flat(run.objective.teacher), flat(run.bare_student))
    assert not torch.equal(flat(run.objective.teacher), first)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"teacher_momentum": 0.9},
            "teacher_momentum=0.9 would be ignored: objective=simclr has no teacher. "
            "Drop it, or use another --objective.",
        ),
        (
            {"predictor_hidden_dim": 8},
            "predictor_hidden_dim=8 would be ignored: objective=simclr has no predictor. "
            "Drop it, or use another --objective.",
        ),
        (
            {"objective": "simsiam", "teacher_momentum": 0.9},
            "teacher_momentum=0.9 would be ignored: objective=simsiam has no teacher. "
            "Drop it, or use another --objective.",
        ),
        (
            {"objective": "byol", "initial_temp": 0.3},
            "initial_temp=0.3 would be ignored: objective=byol has no temperature. "
            "Drop it, or use another --objective.",
        ),
        (
            {"objective": "simsiam", "final_temp": 0.3},
            "final_temp=0.3 would be ignored: objective=simsiam has no temperature. "
            "Drop it, or use another --objective.",
        ),
    ],
)
def test_settings_of_other_objectives_are_refused(
    flags: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        tiny_config(tmp_path, tmp_path, **flags)
    assert str(error.value) == f"loss: {message}"


@pytest.mark.parametrize(
    ("name", "value", "section"), [("train_mask_until", 0.5, "mask: "), ("alpha_entropy", 0.5, "")]
)
def test_a_control_without_a_mask_model_has_nothing_to_set(
    name: str, value: float, section: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        tiny_config(tmp_path, tmp_path, mask_source="random", **{name: value})
    assert str(error.value).startswith(f"{section}{name}")
    assert str(error.value).endswith("trains no mask model. Drop it, or use --mask-source learned.")


def test_settings_of_a_simclr_run_take_another_objective(tmp_path: Path) -> None:
    saved = tiny_config(tmp_path, tmp_path).model_dump(mode="json")
    assert saved["loss"]["predictor_hidden_dim"] is None
    for name, width in (("byol", 4096), ("simsiam", 512)):
        again = TrainConfig.model_validate(merge(saved, {"loss": {"objective": name}}))
        assert again.loss.predictor_hidden_dim == width
        assert TrainConfig.model_validate(again.model_dump(mode="json")) == again


@pytest.mark.parametrize("given", [{"demo": True}, {"preset": "stable"}])
@pytest.mark.parametrize("name", KINDS)
def test_presets_leave_temperatures_out_where_there_are_none(
    name: str, given: dict[str, Any]
) -> None:
    data = {} if given.get("demo") else {"data_path": ["patches"]}
    config = TrainConfig(**given, data=data, loss={"objective": name})
    assert config.loss.final_temp == 0.05
    assert config.loss.alpha_sparsity == (0.5 if given.get("demo") else 2.0)
    assert DEMO["loss"]["final_temp"] == 0.2
