"""What an objective is, so that the step, its accumulated form and the diagnostics know none.

Shape legend: B images of this rank, V masked views of each, D embedding; ``...`` stands for what an
objective keeps of a view, D by default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adios_tme.optim.schedule import Schedule

ImageBatches = Sequence[Tensor]


class Objective(nn.Module, ABC):
    """What the student minimises and, on the masked views alone, the mask model maximises.

    A module: parameters of its own (a predictor) are trained with the student's, and all of its
    state (a momentum teacher) is saved and loaded with the run. SimCLR has neither.
    """

    needs_whole_batch = True
    """Whether an image's loss depends on the other images of the update, on every rank. Then an
    update in several passes takes the gradient on all embeddings first; else passes are averaged.
    """

    def embed(self, student: nn.Module, batches: ImageBatches) -> Tensor:
        """What is compared of each view, in one call of the student.

        Args:
            student: Encoder and head.
            batches: Normalised views (n, C, H, W) of one or several sizes.

        Returns:
            (sum of n, ...), in order.
        """
        return torch.cat(student(batches))

    @abstractmethod
    def loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        """Compare masked views with the clean one.

        Args:
            clean: (B, ...) of the whole images.
            masked: (V, B, ...) of the same images, masked.
            now: Temperature and rates of this step.

        Returns:
            (V,) losses, averaged over this rank's images; the mean over ranks is the loss.
        """

    def embed_clean(self, student: nn.Module, images: Tensor) -> Tensor:
        """What the mask half compares masked views with, which needs no gradient: (B, ...)."""
        return self.embed(student, [images])

    def embed_masked(self, student: nn.Module, views: Tensor) -> Tensor:
        """What the mask half keeps of masked views, with their gradient: (n, ...)."""
        return self.embed(student, [views])

    def mask_loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        """The loss (V,) in the mask half, where parts without a gradient may be left out.

        Args:
            clean: (B, ...), as `embed_clean` gives it.
            masked: (V, B, ...), as `embed_masked` does.
            now: Temperature and rates of this step.
        """
        return self.loss(clean, masked, now)

    def embeddings(self, embedded: Tensor) -> Tensor:
        """The student's embeddings (..., D) in what `embed` gives."""
        return embedded

    def restart(self, student: nn.Module) -> None:
        """Begin anew with the student as it is, whose weights came from elsewhere."""

    def after_update(self, student: nn.Module, now: Schedule) -> None:
        """Follow the student, once it has been updated (a momentum teacher does)."""
