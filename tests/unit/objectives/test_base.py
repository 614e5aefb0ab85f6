"""An objective costs one file: this one, which has all that an objective may have."""

from __future__ import annotations

import copy
import dataclasses
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adios_tme.config.objective import LossConfig
from adios_tme.distributed.world import World, process_group
from adios_tme.models.student import Student
from adios_tme.objectives.base import Objective
from adios_tme.objectives.build import build_objective
from adios_tme.optim.schedule import Schedule
from adios_tme.run_folder.checkpoints import read_checkpoint
from adios_tme.training import state
from adios_tme.training.accumulate import accumulated_step
from adios_tme.training.loop import run_training
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import make_dataset, tiny_config
from tests.spawn import run_on_ranks

WORLD = World(0, 1, 0, 1, torch.device("cpu"))
SHAPE: dict[str, Any] = {"optimizer_type": "sgd", "lr": 0.05, "warmup_iterations": 0}


class ToyObjective(Objective):
    """A predictor whose output for the masked view is drawn to a teacher's for the clean one."""

    needs_whole_batch = False

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.predictor = nn.Linear(16, 16)
        self.teacher = copy.deepcopy(student).requires_grad_(False)

    def embed(self, student: nn.Module, batches: Sequence[Tensor]) -> Tensor:
        """Embeddings of student and, without gradient, of the teacher: (n, 2, D)."""
        with torch.no_grad():
            targets = torch.cat(self.teacher(batches))
        return torch.stack([torch.cat(student(batches)), targets], dim=1)

    def embeddings(self, embedded: Tensor) -> Tensor:
        return embedded[..., 0, :]

    def loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        predicted = self.predictor(masked[..., 0, :])
        losses: Tensor = (predicted - clean[..., 1, :]).square().mean(dim=(1, 2))
        return losses

    @torch.no_grad()
    def after_update(self, student: nn.Module, now: Schedule) -> None:
        for slow, fast in zip(self.teacher.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast, 0.1)

    def restart(self, student: nn.Module) -> None:
        self.teacher.load_state_dict(student.state_dict())


def build(student: Student, loss: LossConfig) -> ToyObjective:
    return ToyObjective(student)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy under a name of its own, as if it were a file of the room; runs ask for it."""
    module = types.ModuleType("adios_tme.objectives.toy")
    vars(module).update(build=build)
    monkeypatch.setitem(sys.modules, "adios_tme.objectives.toy", module)
    ask_for_the_toy(monkeypatch)


def ask_for_the_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "build_objective", lambda loss, student: build(student, loss))


def flat(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in network.parameters()])


def test_an_objective_is_found_by_the_name_of_its_module(toy: None) -> None:
    student = Run.build(tiny_config(Path(), Path()), WORLD).bare_student
    settings = LossConfig.model_construct(objective="toy")  # type: ignore[arg-type]
    objective = build_objective(settings, student)
    assert isinstance(objective, ToyObjective)


def test_its_parameters_move_in_the_students_half_alone(toy: None, tmp_path: Path) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path, **SHAPE), WORLD)
    assert isinstance(run.objective, ToyObjective)
    predictor, teacher = flat(run.objective.predictor), flat(run.objective.teacher)
    train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    once = flat(run.objective.predictor)
    assert not torch.equal(once, predictor)
    torch.testing.assert_close(
        flat(run.objective.teacher), torch.lerp(teacher, flat(run.bare_student), 0.1)
    )
    now = dataclasses.replace(run.schedule(), lr=0.0)
    masks = flat(run.bare_mask_model)
    train_step(run, torch.randn(4, 3, 32, 32), now)
    assert torch.equal(flat(run.objective.predictor), once)
    assert not torch.equal(flat(run.bare_mask_model), masks)


@pytest.mark.parametrize("num_passes", [2, 4])
@pytest.mark.parametrize("whole_batch", [False, True])
@pytest.mark.parametrize("area_over", ["image", "batch"])
def test_passes_give_the_numbers_of_one_batch(
    num_passes: int,
    area_over: str,
    whole_batch: bool,
    toy: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ToyObjective, "needs_whole_batch", whole_batch)
    images = torch.randn(8, 3, 32, 32)
    config = tiny_config(tmp_path, tmp_path, area_over=area_over, **SHAPE)
    at_once, in_passes = (Run.build(config, WORLD) for _ in "ab")
    for _ in range(2):
        now = at_once.schedule()
        expected = train_step(at_once, images, now)
        found = accumulated_step(in_passes, list(images.chunk(num_passes)), now)
        for name in ("student_loss", "student_grad_norm", "mask_loss", "mask_grad_norm"):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-6
            )
        at_once.advance()
    for name in ("bare_student", "bare_mask_model", "objective"):
        one, other = flat(getattr(at_once, name)), flat(getattr(in_passes, name))
        assert (one - other).norm() / other.norm() < 1e-6, name


def test_its_state_is_saved_and_resumed_bit_for_bit(toy: None, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    shape = SHAPE | {"save_freq": 2, "total_iterations": 4, "log_freq": 4}
    for name in ("straight", "resumed"):
        run_training(tiny_config(tmp_path / "data", tmp_path / name, **shape))
    saved = read_checkpoint(tmp_path / "straight" / "checkpoint.pth")
    assert {"predictor.weight", "predictor.bias"} < set(saved["objective"])
    for path in (tmp_path / "resumed").glob("checkpoint*.pth"):
        if "00000002" not in path.name:
            path.unlink()
    run_training(tiny_config(tmp_path / "data", tmp_path / "resumed", **shape))
    again = read_checkpoint(tmp_path / "resumed" / "checkpoint.pth")
    for name, value in saved["objective"].items():
        assert torch.equal(again["objective"][name], value), name


def weights_on_a_rank(folder: Path, images: Tensor) -> Any:
    with pytest.MonkeyPatch.context() as monkeypatch, process_group("cpu") as world:
        ask_for_the_toy(monkeypatch)
        config = tiny_config(folder, folder, batch_size_per_gpu=4, **SHAPE)
        run = Run.build(config, world)
        own = images.chunk(world.num_ranks)[world.rank]
        for _ in range(2):
            train_step(run, own, run.schedule())
            run.advance()
        return flat(run.objective).numpy(), flat(run.bare_student).numpy()


def test_ranks_give_the_numbers_of_one_process(toy: None, tmp_path: Path) -> None:
    images = torch.randn(8, 3, 32, 32)
    expected = weights_on_a_rank(tmp_path, images)
    for found in run_on_ranks(weights_on_a_rank, 2, tmp_path, images):
        for one, other in zip(found, expected, strict=True):
            assert abs(one - other).max() < 1e-6
