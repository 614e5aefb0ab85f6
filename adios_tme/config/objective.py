"""What student and mask model are trained by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adios_tme.config.base import Config, Shapes

ObjectiveName = Literal["simclr"]
"""Modules of `adios_tme.objectives` that say how to build one."""


class LossConfig(Config):
    """The contrastive loss and the penalty on mask area."""

    alpha_sparsity: Annotated[float, Shapes("step")] = Field(default=0.1, ge=0)
    """Weight of the sparsity penalty in the mask model's loss."""

    sparsity_penalty_type: Annotated[Literal["inverse_sin", "sinh_squared"], Shapes("step")] = (
        "inverse_sin"
    )
    """Penalty on a mask's share of the image: steep at 0 and 1, or flat around one half."""

    initial_temp: Annotated[float, Shapes("step")] = Field(default=0.2, gt=0)
    """Contrastive temperature at the first iteration (dimensionless)."""

    final_temp: Annotated[float, Shapes("step")] = Field(default=0.05, gt=0)
    """Contrastive temperature at the last iteration, reached by half a cosine."""
