"""Layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017, arXiv:1708.03888)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, weight by weight, by a trust ratio.

    For a matrix or kernel w with gradient g the ratio is ``eta |w| / (|g| + weight_decay |w|)``,
    divided by the learning rate and clipped at 1; it scales ``g + weight_decay w`` before the
    momentum. Biases and norms (one-dimensional weights) take plain SGD steps, and so do weights or
    gradients that are zero.

    Args:
        params: Weights or parameter groups.
        lr: Learning rate.
        momentum: Momentum factor.
        weight_decay: L2 decay, part of the gradient.
        eta: Trust coefficient.

    Raises:
        ValueError: If a number is negative.
    """

    # The step honours ``found_inf`` on the device, as torch's fused optimisers do.
    _step_supports_amp_scaling = True

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
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        grad = weight.grad
        assert grad is not None
        scale = getattr(self, "grad_scale", None)
        if scale is not None:
            grad = grad / scale
        update = grad.add(weight, alpha=group["weight_decay"])
        if weight.ndim > 1:
            update = update * _trust(weight, grad, group)
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"]
        moved = buffer.mul(group["momentum"]).add_(update)
        refused = getattr(self, "found_inf", None)
        if refused is None:
            buffer.copy_(moved)
            weight.add_(moved, alpha=-group["lr"])
        else:  # by selection, not by product: what is refused is not finite
            keep = refused.to(weight.device) > 0
            buffer.copy_(torch.where(keep, buffer, moved))
            weight.copy_(torch.where(keep, weight, weight - group["lr"] * moved))


def _trust(weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
    """The factor on a layer's gradient, on the device."""
    size, slope = weight.norm(), grad.norm()
    ratio = group["eta"] * size / (slope + group["weight_decay"] * size)
    ratio = torch.where((size > 0) & (slope > 0), ratio / group["lr"], 1.0)
    return ratio.clamp(max=1.0)
