"""Layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017, arXiv:1708.03888)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

#: What torch's multi-tensor operators take and give.
_Tensors = list[Tensor] | tuple[Tensor, ...]


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, weight by weight, by a trust ratio.

    For a matrix or kernel w with gradient g the ratio is ``eta |w| / (|g| + weight_decay |w|)``,
    divided by the learning rate and clipped at 1; it scales ``g + weight_decay w`` before the
    momentum. Biases and norms (one-dimensional weights) take plain SGD steps, and so do weights or
    gradients that are zero. A step takes the same few operators whatever the number of weights.

    Args:
        params: Weights or parameter groups.
        lr: Learning rate.
        momentum: Momentum factor.
        weight_decay: L2 decay, part of the gradient.
        eta: Trust coefficient.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> import torch
        >>> from adios_tme import LARS
        >>> layer = torch.nn.Linear(4, 2)
        >>> optimizer = LARS(layer.parameters(), lr=0.1, weight_decay=1e-4)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> bool(optimizer.state[layer.weight]["momentum_buffer"].any())
        True
    """

    # The protocol of torch's GradScaler, which sets these two and deletes them after a step: both
    # are read on the device, as torch's fused optimisers do.
    _step_supports_amp_scaling = True
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.02,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        for name, value in numbers.items():
            if value < 0:
                raise ValueError(f"LARS: {name}={value} is negative. Use zero or more.")
        super().__init__(params, numbers)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every weight that has a gradient, unless ``found_inf`` says not to."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in _alike(group["params"]):
                self._move(weights, group)
        return loss

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Move weights that are alike, all of them by each operator."""
        grads: _Tensors = [weight.grad for weight in weights if weight.grad is not None]
        device, refused = weights[0].device, self.found_inf
        if self.grad_scale is not None:
            grads = torch._foreach_div(grads, self.grad_scale.to(device))
        # The weights come first: the fused step below reads memory as they are laid out.
        updates = torch._foreach_mul(weights, group["weight_decay"])
        torch._foreach_add_(updates, grads)
        if weights[0].ndim > 1:
            torch._foreach_mul_(updates, _trust(weights, grads, group))
        # It skips everything where the flag is set, so that nothing non-finite gets through.
        torch._fused_sgd_(
            weights,
            updates,
            [self._buffer(weight) for weight in weights],
            weight_decay=0.0,
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
            found_inf=None if refused is None else refused.to(device),
        )

    def _buffer(self, weight: Tensor) -> Tensor:
        """The momentum of a weight, zero at first: a first step may be refused."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _alike(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Weights with a gradient that one operator takes together: layers apart from vectors."""
    alike: dict[tuple[object, ...], list[Tensor]] = defaultdict(list)
    for weight in weights:
        if weight.grad is not None:
            alike[weight.device, weight.dtype, weight.ndim > 1].append(weight)
    return alike.values()


def _trust(weights: _Tensors, grads: _Tensors, group: dict[str, Any]) -> _Tensors:
    """The factor on each layer's gradient, on the device."""
    size, slope = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, grads))
    ratio = group["eta"] * size / (slope + group["weight_decay"] * size)
    ratio = torch.where((size > 0) & (slope > 0), ratio / group["lr"], 1.0)
    return ratio.clamp(max=1.0).unbind()
