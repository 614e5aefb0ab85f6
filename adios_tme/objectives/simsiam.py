"""SimSiam: a predictor finds the student's own embedding of the other view.

Shape legend: B images of this rank, V masked views of each, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adios_tme.config.objective import LossConfig
from adios_tme.models.student import Student
from adios_tme.objectives.base import Objective
from adios_tme.objectives.predictor import Predictor, WholeBatchNorm, similarity
from adios_tme.optim.schedule import Schedule


class SimSiam(Objective):
    """Chen and He 2021, arXiv:2011.10566, between an image and each of its masked views.

    Embeddings pass a batch norm without scale and shift, with which the paper's projector ends and
    our head does not; it keeps a constant from being a solution.

    Args:
        width: Of an embedding.
        hidden_dim: Width of the predictor's hidden layer.
    """

    def __init__(self, width: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = WholeBatchNorm(width, affine=False)
        self.predictor = Predictor(width, hidden_dim)

    def loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        """Mean of -cos both ways for each masked view (equation 4); in [-1, 1]."""
        targets = self.norm(torch.cat([clean.unsqueeze(0), masked]).float())
        predicted = self.predictor(targets)
        to_clean = similarity(predicted[1:], targets[0])
        to_masked = similarity(predicted[:1], targets[1:])
        return -(to_clean + to_masked) / 2

    def embeddings(self, embedded: Tensor) -> Tensor:
        """Embeddings (..., B, D) as they are compared, behind the batch norm; a collective."""
        normed: Tensor = self.norm(embedded.float())
        return normed

    def mask_loss(self, clean: Tensor, masked: Tensor, now: Schedule) -> Tensor:
        """Half of -cos of the predicted and the clean embedding, the part with a gradient."""
        predicted = self.predictor(self.norm(masked.float()))
        return -similarity(predicted, self.norm(clean.float())) / 2


def build(student: Student, loss: LossConfig) -> SimSiam:
    """The objective, as wide as the student's embeddings."""
    assert loss.predictor_hidden_dim is not None
    return SimSiam(student.head.output_dim, loss.predictor_hidden_dim)
