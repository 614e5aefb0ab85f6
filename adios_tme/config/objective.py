"""What student and mask model are trained by."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from adios_tme.config.base import Config, Shapes, is_changed

ObjectiveName = Literal["simclr", "byol", "simsiam"]
"""Modules of `adios_tme.objectives` that say how to build one."""

#: Width of the predictor's hidden layer: of BYOL's paper, and of SimSiam's.
PREDICTOR_WIDTHS = {"byol": 4096, "simsiam": 512}


SparsityPenalty = Literal["inverse_sin", "sinh_squared"]
"""Penalties on the area of masks that have no targets."""

NO_TEACHER, NO_TEMPERATURE = "has no teacher", "has no temperature"

#: How far targets may be from adding up to one, as 0.33 0.33 0.33 are.
TARGETS_TOLERANCE = 0.02


class LossConfig(Config):
    """The objective of both networks and the penalties on masks."""

    objective: Annotated[ObjectiveName, Shapes("weights")] = "simclr"
    """What the student lowers and the mask model raises: SimCLR's contrastive loss; BYOL, where a
    predictor finds the embeddings of a momentum teacher; or SimSiam, where it finds the student's
    own."""

    predictor_hidden_dim: Annotated[int | None, Shapes("weights")] = Field(default=None, gt=0)
    """Width of the hidden layer of the predictor; default: 4096 with byol, 512 with simsiam."""

    teacher_momentum: Annotated[float, Shapes("step")] = Field(default=0.996, ge=0, lt=1)
    """Share of BYOL's teacher that the first update keeps; rises to 1 by half a cosine."""

    alpha_sparsity: Annotated[float, Shapes("step")] = Field(default=0.1, ge=0)
    """Weight of the penalty on areas in the mask model's loss."""

    sparsity_penalty_type: Annotated[SparsityPenalty, Shapes("step")] = "inverse_sin"
    """Penalty on a mask's share of the image: steep at 0 and 1, or flat around one half."""

    alpha_entropy: Annotated[float, Shapes("step")] = Field(default=0.0, ge=0)
    """Weight, in the mask model's loss, of the entropy of the softmax of an image's mask areas,
    which is lowest where areas differ most."""

    area_targets: Annotated[tuple[float, ...] | None, Shapes("step")] = None
    """Shares of the image that the masks should have, one for each; they add up to 1. The penalty
    is then the squared distance to them instead, smallest mask to smallest target and so on, so
    that no channel is fixed beforehand. Absent: no targets."""

    area_over: Annotated[Literal["image", "batch"], Shapes("step")] = "image"
    """Whose areas are penalised: each image's, or the mean over all images of an update."""

    reconstruction_weight: Annotated[float, Shapes("step")] = Field(default=0.0, ge=0)
    """Weight, in the mask model's loss, of the share (0 to 1) of the student's patch features that
    the mean feature of each mask's region leaves unexplained; costs one more forward pass of the
    student."""

    edge_weight: Annotated[float, Shapes("step")] = Field(default=0.0, ge=0)
    """Weight, in the mask model's loss, of the masks' total variation where the optical density
    has no edge."""

    consistency_weight: Annotated[float, Shapes("step")] = Field(default=0.0, ge=0)
    """Weight, in the mask model's loss, of the squared difference between the masks and those of
    the mirrored image, mirrored back; costs one more pass of the mask model."""

    stain_weight: Annotated[float, Shapes("step")] = Field(default=0.0, ge=0)
    """Weight, in the mask model's loss, of the cross-entropy of the first mask with a soft
    threshold on each image's haematoxylin: nuclei by a prior from the stain, still without a
    label."""

    stain_until: Annotated[float, Shapes("step")] = Field(default=1.0, gt=0, le=1)
    """Fraction of the run after which the stain's term is dropped: the prior then says where the
    masks begin, and the student where they go."""

    initial_temp: Annotated[float, Shapes("step")] = Field(default=0.2, gt=0)
    """Contrastive temperature at the first iteration (dimensionless)."""

    final_temp: Annotated[float, Shapes("step")] = Field(default=0.05, gt=0)
    """Contrastive temperature at the last iteration, reached by half a cosine."""

    @field_validator("predictor_hidden_dim")
    @classmethod
    def _papers_have_a_width(cls, width: int | None, info: ValidationInfo) -> int | None:
        return width or PREDICTOR_WIDTHS.get(info.data.get("objective", ""))

    @field_validator("area_targets")
    @classmethod
    def _targets_share_the_image(
        cls, targets: tuple[float, ...] | None
    ) -> tuple[float, ...] | None:
        if targets is None:
            return None
        given = " ".join(map(str, targets))
        if not all(0 < target < 1 for target in targets):
            raise ValueError(f"{given} are no shares of an image. Give numbers between 0 and 1.")
        if abs(sum(targets) - 1) > TARGETS_TOLERANCE:
            raise ValueError(
                f"{given} add up to {sum(targets):.4g}, and masks to 1 at every pixel. "
                f"Give shares that add up to 1."
            )
        return targets

    @model_validator(mode="after")
    def _objectives_have_settings_of_their_own(self) -> Self:
        of_others = {
            "simclr": {"predictor_hidden_dim": "has no predictor", "teacher_momentum": NO_TEACHER},
            "byol": {"initial_temp": NO_TEMPERATURE, "final_temp": NO_TEMPERATURE},
            "simsiam": {
                "teacher_momentum": NO_TEACHER,
                "initial_temp": NO_TEMPERATURE,
                "final_temp": NO_TEMPERATURE,
            },
        }
        for name, reason in of_others[self.objective].items():
            if is_changed(self, name):
                raise ValueError(
                    f"{name}={getattr(self, name)} would be ignored: "
                    f"objective={self.objective} {reason}. Drop it, or use another --objective."
                )
        return self

    @model_validator(mode="after")
    def _there_is_a_prior_to_end(self) -> Self:
        if self.stain_weight == 0 and is_changed(self, "stain_until"):
            raise ValueError(
                f"stain_until={self.stain_until} would be ignored: stain_weight=0 has no prior. "
                f"Drop it, or give --stain-weight 10."
            )
        return self

    @model_validator(mode="after")
    def _areas_are_penalised_once(self) -> Self:
        if self.area_targets and is_changed(self, "sparsity_penalty_type"):
            raise ValueError(
                f"sparsity_penalty_type={self.sparsity_penalty_type} would be ignored: "
                f"area_targets take its place. Give one of them."
            )
        for name in ("area_targets", "area_over"):
            if self.alpha_sparsity == 0 and is_changed(self, name):
                raise ValueError(
                    f"{name} would be ignored: alpha_sparsity=0 leaves areas free. "
                    f"Drop it, or raise --alpha-sparsity."
                )
        return self
