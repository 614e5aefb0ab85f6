"""LARS against the update rule written out in double precision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from adios_tme.optim.lars import LARS

LR, MOMENTUM, DECAY, ETA = 0.3, 0.9, 0.05, 0.02


class NumpyLars:
    """You et al. 2017, algorithm 1, with the ratio over lr clipped at one."""

    def __init__(self, weight: NDArray[np.float64]) -> None:
        self.weight = weight.copy()
        self.velocity = np.zeros_like(weight)

    def step(self, gradient: NDArray[np.float64]) -> None:
        weight_norm, gradient_norm = np.linalg.norm(self.weight), np.linalg.norm(gradient)
        update = gradient + DECAY * self.weight
        if self.weight.ndim > 1 and weight_norm > 0 and gradient_norm > 0:
            trust = ETA * weight_norm / (gradient_norm + DECAY * weight_norm)
            update = update * min(float(trust) / LR, 1.0)
        self.velocity = MOMENTUM * self.velocity + update
        self.weight = self.weight - LR * self.velocity


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2), (7,)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0])  # the ratio is clipped, or not
def test_ten_steps(shape: tuple[int, ...], scale: float) -> None:
    rng = np.random.default_rng(3)
    start = rng.normal(size=shape)
    expected = NumpyLars(start)
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = LARS([weight], lr=LR, momentum=MOMENTUM, weight_decay=DECAY, eta=ETA)
    for _ in range(10):
        gradient = rng.normal(size=shape) * scale
        expected.step(gradient)
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(weight.detach().numpy(), expected.weight, rtol=1e-10)


def test_its_state_saves_and_loads() -> None:
    gradients = torch.randn(4, 3, 3)
    weights = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    first, second = (LARS([weight], lr=LR) for weight in weights)
    for number, gradient in enumerate(gradients):
        if number == 2:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            with torch.no_grad():
                weights[1].copy_(weights[0])
        weights[0].grad = gradient
        first.step()
        if number >= 2:
            weights[1].grad = gradient
            second.step()
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0)


def test_a_refused_step_changes_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([weight], lr=LR)
    weight.grad = torch.full((2, 2), float("nan"))
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert weight.detach().tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert optimizer.state[weight]["momentum_buffer"].abs().sum() == 0


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "eta"])
def test_a_negative_number_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        LARS([torch.nn.Parameter(torch.ones(1))], **{"lr": 0.1, name: -1.0})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_weights_move_as_each_alone(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    shapes = [(6, 5), (7,), (4, 3, 2, 2), (), (3, 8), (2,)]
    starts = [rng.normal(size=shape) for shape in shapes]
    expected = [NumpyLars(start) for start in starts]
    weights = [torch.nn.Parameter(torch.tensor(start, dtype=dtype)) for start in starts]
    idle = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([*weights, idle], lr=LR, momentum=MOMENTUM, weight_decay=DECAY, eta=ETA)
    optimizer.grad_scale = torch.tensor(8.0)
    optimizer.found_inf = torch.tensor(0.0)
    for _ in range(5):
        for weight, one in zip(weights, expected, strict=True):
            gradient = rng.normal(size=one.weight.shape)
            one.step(gradient)
            # Columns first, as a product of transposed matrices leaves them.
            columns = torch.tensor(np.array(8 * gradient.T, order="C"), dtype=dtype)
            weight.grad = columns.permute(tuple(reversed(range(columns.ndim))))
        optimizer.step()
    for weight, one in zip(weights, expected, strict=True):
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        np.testing.assert_allclose(weight.detach().numpy(), one.weight, rtol=tolerance)
    assert idle not in optimizer.state


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


def operators_of_a_step(num_weights: int) -> int:
    weights = [
        torch.nn.Parameter(torch.ones(shape))
        for shape in [(3, 2), (3,)]
        for _ in range(num_weights)
    ]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer = LARS(weights, lr=LR)
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.grad_scale = torch.tensor(2.0)
    optimizer.step()  # makes the buffers
    with (operators := Operators()):
        optimizer.step()
    return operators.count


def test_more_weights_take_no_more_operators() -> None:
    assert operators_of_a_step(1) == operators_of_a_step(20) > 4
