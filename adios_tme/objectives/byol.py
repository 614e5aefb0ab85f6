"""BYOL: a predictor finds a slow teacher's embedding of the other view.

Shape legend: B images of this rank, V masked views of each, n views of any kind, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adios_tme.config.objective import LossConfig
from adios_tme.models.build import build_teacher
from adios_tme.models.ema import move_towards
from adios_tme.models.student import Student
from adios_tme.objectives.base import ImageBatches, Objective
from adios_tme.objectives.predictor import Predictor, similarity
from adios_tme.optim.schedule import Schedule


class BYOL(Objective):
    """Grill et al. 2020, arXiv:2006.07733, between an image and each of its masked views.

    The loss is symmetric (equation 2 both ways): predictions of the masked view are compared with
    the teacher's clean embedding, and of the clean view with the teacher's masked one. What the
    teacher sees has no gradient, so the mask half takes the first way alone.

    The teacher is in evaluation mode: stochastic depth is the student's.

    Args:
        student: First weights of the teacher.
        hidden_dim: Width of the predictor's hidden layer.
    """

    def __init__(self, student: Student, hidden_dim: int) -> None:
        super().__init__()
        self.predictor = Predictor(student.head.output_dim, hidden_dim)
        self.teacher = build_teacher(student)

    def train(self, mode: bool = True) -> BYOL:
        """Set the mode of the predictor."""
        super().train(mode)
        self.teacher.eval()
        return self

    def embed(self, student: nn.Module, batches: ImageBatches) -> Tensor:
        """Embeddings (n, 2, D): the student's, and the teacher's."""
        targets = self._targets(batches)  # first, while the student's activations are not there
        return torch.stack([torch.cat(student(batches)), targets], dim=1)

    def embeddings(self, embedded: Tensor) -> Tensor:
        """The student's (..., D)."""
        return embedded[..., 0, :]

    def loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        """2 - 2 cos, both ways added, for each masked view; in [0, 8]."""
        views = torch.cat([clean.unsqueeze(0), masked]).float()
        predicted, targets = self.predictor(views[..., 0, :]), views[..., 1, :]
        to_clean = similarity(predicted[1:], targets[0])
        to_masked = similarity(predicted[:1], targets[1:])
        return 4 - 2 * to_clean - 2 * to_masked

    def embed_clean(self, student: nn.Module, images: Tensor) -> Tensor:
        """Targets (B, D): the teacher's embeddings."""
        return self._targets([images])

    def embed_masked(self, student: nn.Module, views: Tensor) -> Tensor:
        """The student's embeddings (n, D)."""
        return torch.cat(student([views]))

    def mask_loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        """2 - 2 cos of the predicted and the teacher's clean embedding; in [0, 4]."""
        return 2 - 2 * similarity(self.predictor(masked.float()), clean.float())

    def restart(self, student: nn.Module) -> None:
        """Let the teacher be the student as it is."""
        self.teacher.load_state_dict(student.state_dict())

    def after_update(self, student: nn.Module, now: Schedule) -> None:
        """Move the teacher's encoder and head towards the student's."""
        move_towards(self.teacher, student, 1 - now.teacher_momentum)

    def _targets(self, batches: ImageBatches) -> Tensor:
        with torch.no_grad():
            return torch.cat(self.teacher(batches))


def build(student: Student, loss: LossConfig) -> BYOL:
    """The objective, with a teacher that begins as the student does."""
    assert loss.predictor_hidden_dim is not None
    return BYOL(student, loss.predictor_hidden_dim)
