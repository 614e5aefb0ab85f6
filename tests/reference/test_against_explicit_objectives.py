"""BYOL and SimSiam against their papers' equations, view by view and with torch's own batch norm.

Everything explicit here: one network call for each view, no step, no sampler.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adios_tme.distributed.world import World
from adios_tme.models.student import Student
from adios_tme.objectives.byol import BYOL
from adios_tme.objectives.predictor import Predictor, WholeBatchNorm
from adios_tme.objectives.simsiam import SimSiam
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))
NUM_IMAGES = 6
Embed = Callable[[Tensor], Tensor]


def plain_predictor(predictor: Predictor) -> nn.Sequential:
    """The same weights around torch's batch norm."""
    first, norm, _, last = predictor
    assert isinstance(first, nn.Linear)
    assert isinstance(norm, WholeBatchNorm)
    assert isinstance(last, nn.Linear)
    stock = nn.BatchNorm1d(first.out_features, track_running_stats=False)
    assert isinstance(norm.weight, nn.Parameter)
    assert isinstance(norm.bias, nn.Parameter)
    stock.weight, stock.bias = norm.weight, norm.bias
    return nn.Sequential(first, stock, nn.ReLU(), last)


def unit(x_BD: Tensor) -> Tensor:
    return x_BD / x_BD.square().sum(dim=1, keepdim=True).sqrt()


def distance(predicted_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Equation 2 of Grill et al. 2020."""
    return (unit(predicted_BD) - unit(target_BD.detach())).square().sum(dim=1).mean()


def byol(predict: Embed, student: Embed, teacher: Embed, clean: Tensor, masked: Tensor) -> Tensor:
    there = distance(predict(student(masked)), teacher(clean))
    back = distance(predict(student(clean)), teacher(masked))
    return there + back


def negative_cosine(predicted_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Equation 1 of Chen and He 2021."""
    return -(unit(predicted_BD) * unit(target_BD.detach())).sum(dim=1).mean()


def simsiam(predict: Embed, student: Embed, clean: Tensor, masked: Tensor) -> Tensor:
    def project(views: Tensor) -> Tensor:
        embedding = student(views)
        return (embedding - embedding.mean(dim=0)) / (
            embedding.var(dim=0, correction=0) + 1e-5
        ).sqrt()

    z_clean, z_masked = project(clean), project(masked)
    there = negative_cosine(predict(z_masked), z_clean)
    back = negative_cosine(predict(z_clean), z_masked)
    return (there + back) / 2


def explicit_loss(
    objective: nn.Module, student: Student, clean: Tensor, views: list[Tensor]
) -> Tensor:
    """Summed over masked views."""
    assert isinstance(objective, BYOL | SimSiam)
    predict = plain_predictor(objective.predictor)
    if isinstance(objective, SimSiam):
        return torch.stack([simsiam(predict, student, clean, view) for view in views]).sum()
    teacher = objective.teacher
    return torch.stack([byol(predict, student, teacher, clean, view) for view in views]).sum()


def gradients(network: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in network.parameters() if weight.grad is not None]


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The step in double precision, the fused optimisers' flag apart."""
    single = torch.float32

    def widest(tensor: Tensor) -> Tensor:
        return tensor.to(single) if tensor.dtype is torch.bool else tensor.double()

    monkeypatch.setattr(Tensor, "float", widest)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(single)


@pytest.mark.parametrize(
    ("name", "num_views"),
    [("byol", "one"), ("simsiam", "one"), ("byol", "two"), ("simsiam", "two")],
)
def test_losses_and_gradients_of_a_step(
    name: str, num_views: str, double: None, tmp_path: Path
) -> None:
    flags = {"objective": name, "predictor_hidden_dim": 24, "clip_grad": 0.0, "lr": 0.01}
    run = Run.build(tiny_config(tmp_path, tmp_path, warmup_iterations=0, **flags), WORLD)
    for _ in range(2):  # in the second step the teacher is another network than the student
        before = copy.deepcopy([run.bare_student, run.objective, run.bare_mask_model])
        images = torch.randn(NUM_IMAGES, 3, 32, 32)
        clean = images if num_views == "one" else torch.randn_like(images)
        report = train_step(run, images, run.schedule(), clean)
        run.advance()
    student, objective, mask_model = before
    assert isinstance(student, Student)
    for network in before:
        network.zero_grad()
    with torch.no_grad():
        masks = mask_model(images)
    views = [images * (1 - masks[:, index, None]) for index in range(3)]
    loss = explicit_loss(objective, student, clean, views)
    loss.backward()
    torch.testing.assert_close(report.student_loss, loss.detach())
    assert isinstance(run.objective, BYOL | SimSiam)
    for found, explicit in ((run.bare_student, student), (run.objective.predictor, objective)):
        expected = gradients(explicit)
        assert len(gradients(found)) == len(expected) > 0
        for one, other in zip(gradients(found), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)

    # The mask half: the student and predictor that have moved, the teacher that has not.
    if isinstance(objective, BYOL):
        assert isinstance(run.objective, BYOL)
        objective.predictor = run.objective.predictor
        moved: nn.Module = objective
    else:
        moved = run.objective
    masks = mask_model(images)
    views = [images * (1 - masks[:, index, None]) for index in range(3)]
    raised = explicit_loss(moved, run.bare_student, clean, views)
    area = masks.mean(dim=(2, 3))
    penalty = (1 / ((torch.pi * area).sin() + 1e-10)).mean(dim=0).sum()
    (0.1 * penalty - raised).backward()
    for one, other in zip(gradients(run.bare_mask_model), gradients(mask_model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_teacher_follows_by_the_momentum_of_its_schedule(tmp_path: Path) -> None:
    flags = {"objective": "byol", "teacher_momentum": 0.8, "total_iterations": 4, "lr": 0.1}
    run = Run.build(tiny_config(tmp_path, tmp_path, warmup_iterations=0, **flags), WORLD)
    assert isinstance(run.objective, BYOL)
    # 1 - 0.2 (cos(pi k / 4) + 1) / 2, by hand.
    for momentum in (0.8, 0.829289, 0.9, 0.970711):
        before = [weight.clone() for weight in run.objective.teacher.parameters()]
        train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
        run.advance()
        networks = (run.objective.teacher, run.bare_student)
        for old, new, fast in zip(before, *(each.parameters() for each in networks), strict=True):
            expected = momentum * old + (1 - momentum) * fast
            torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-6)
    assert run.schedule().teacher_momentum == 1


def test_batch_norm_is_torchs() -> None:
    x = (torch.randn(3, 8, 5, dtype=torch.float64) * 3 + 7).requires_grad_()
    ours = WholeBatchNorm(5).double()
    stock = nn.BatchNorm1d(5, track_running_stats=False).double()
    with torch.no_grad():
        for norm in (ours, stock):
            for weight in norm.parameters():
                weight.copy_(torch.arange(5) + 0.5)
    expected = torch.stack([stock(view) for view in x])
    torch.testing.assert_close(ours(x), expected)
    towards = torch.randn_like(expected)
    (one,) = torch.autograd.grad(ours(x), x, towards)
    (other,) = torch.autograd.grad(expected, x, towards)
    torch.testing.assert_close(one, other)
