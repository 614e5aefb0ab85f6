"""What an objective adds to a step on paper: a predictor, a teacher, numbers that ranks exchange.

Shape legend: B images of a rank, V views, D embedding, H hidden width of the predictor.
"""

from __future__ import annotations

from dataclasses import dataclass

from adios_tme.benchmark.throughput.student_cost import SINGLE
from adios_tme.config.objective import ObjectiveName
from adios_tme.config.train import TrainConfig


@dataclass(frozen=True)
class ObjectiveCost:
    """Of one objective, whose similarities of embeddings are left out."""

    name: ObjectiveName
    width: int
    """D."""
    hidden_dim: int
    """H; 0 without a predictor."""

    @classmethod
    def of(cls, config: TrainConfig) -> ObjectiveCost:
        """Of the objective that the settings name."""
        loss = config.loss
        return cls(loss.objective, config.model.tme_output_dim, loss.predictor_hidden_dim or 0)

    @property
    def has_teacher(self) -> bool:
        """Whether a second student goes forward.

        It does so on every view of the student half, and on the clean one of the mask half instead
        of the student.
        """
        return self.name == "byol"

    @property
    def num_weights(self) -> int:
        """Of the predictor."""
        if not self.hidden_dim:
            return 0
        return 2 * self.width * self.hidden_dim + 2 * self.hidden_dim + self.width

    def predictor_flops(self, num_views: int, num_masked: int) -> int:
        """Of the predictor for one image.

        Args:
            num_views: V of the student half: forward, and back to weights and embeddings.
            num_masked: V of the mask half: forward, and back to embeddings.
        """
        forward = 4 * self.width * self.hidden_dim
        return (3 * num_views + 2 * num_masked) * forward

    def sent_bytes(self, num_views: int, num_masked: int, batch_size: int) -> int:
        """What a rank contributes to each other's loss in a step, in both halves.

        SimCLR sends every embedding. Others send a mean and a variance for each view and number
        that batch norm sees, whatever the batch.
        """
        if self.name == "simclr":
            return (num_views + 1 + num_masked) * batch_size * self.width * SINGLE
        numbers = (num_views + num_masked) * self.hidden_dim
        if self.name == "simsiam":
            numbers += (num_views + 1 + num_masked) * self.width
        return 2 * numbers * SINGLE
