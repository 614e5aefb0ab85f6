"""One optimiser's update, refused where the gradient is not finite.

After the gradients are averaged over ranks a non-finite value anywhere is non-finite everywhere, so
every rank refuses alike. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from adios_tme.distributed.collectives import average_gradients

#: Updates in a row that may be refused; with fp16 the scaler may need as many halvings to come
#: down from its first scale.
PATIENCE = 3
PATIENCE_WITH_SCALER = 20


class Updater:
    """Steps one network's optimiser.

    Args:
        networks: Those whose gradients are clipped together. The gradients of the first one are
            averaged over ranks by its wrapper, those of the others here.
        optimizer: Of all their weights; must honour ``found_inf`` (fused torch optimisers and ours
            do).
        clip_grad: Largest gradient norm; 0 leaves gradients as they are.
        scaler: Loss scaling for fp16; None otherwise.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        clip_grad: float,
        scaler: GradScaler | None,
    ) -> None:
        self.optimizer = optimizer
        self.scaler = scaler
        self._clip_grad = clip_grad or float("inf")
        wrapped, *others = (
            [weight for weight in network.parameters() if weight.requires_grad]
            for network in networks
        )
        self._unwrapped = [weight for weights in others for weight in weights]
        self._parameters = wrapped + self._unwrapped
        device = self._parameters[0].device
        self._refused_in_a_row = torch.zeros((), device=device)
        self._worst_row = torch.zeros((), device=device)

    def __call__(self, loss: Tensor, lr: float) -> Tensor:
        """Zero, backward, clip, and step unless the norm is not finite.

        Returns:
            Norm of the gradient before clipping, on the device.
        """
        self.zero()
        self.backward(loss)
        return self.step(lr)

    def zero(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to what is there."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def add_gradients(self, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
        """Add gradients that were taken apart from `backward`, which sees to their scale."""
        for weight, gradient in zip(weights, gradients, strict=True):
            scaled = gradient if self.scaler is None else self.scaler.scale(gradient)
            weight.grad = scaled if weight.grad is None else weight.grad + scaled

    def step(self, lr: float) -> Tensor:
        """Clip, and step unless the norm is not finite.

        Returns:
            Norm of the gradient before clipping, on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        average_gradients(self._unwrapped)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_grad)
        self._step(refused=(~norm.isfinite()).float())
        return norm

    def _step(self, refused: Tensor) -> None:
        self._refused_in_a_row = (self._refused_in_a_row + 1) * refused
        self._worst_row = torch.maximum(self._worst_row, self._refused_in_a_row)
        if self.scaler is None:
            # The protocol of torch's GradScaler: a fused step reads this flag on the device.
            self.optimizer.found_inf = refused  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def has_diverged(self) -> bool:
        """Whether too many updates in a row were refused (host sync); the same on every rank."""
        patience = PATIENCE_WITH_SCALER if self.scaler else PATIENCE
        return bool((self._worst_row >= patience).item())


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Let gradients pass through networks and stay on none of their weights."""
    learning = [
        weight for network in networks for weight in network.parameters() if weight.requires_grad
    ]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
