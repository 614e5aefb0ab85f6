"""How the weights move."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adios_tme.config.base import Basic, Config, OtherNames, Shapes, is_changed


def default_warmup(total_iterations: int) -> int:
    """A tenth of a short run, else 10,000 iterations."""
    return min(10_000, total_iterations // 10)


class OptimConfig(Config):
    """Optimisers and schedules of both networks."""

    optimizer_type: Annotated[Literal["adamw", "sgd"], Shapes("weights")] = "adamw"
    """Optimiser of both networks."""

    use_lars: Annotated[bool, Shapes("weights")] = False
    """Scale SGD's step by layer (LARS, You et al. 2017); needs --optimizer-type sgd."""

    lars_eta: Annotated[float, Shapes("step")] = Field(default=0.02, gt=0)
    """Trust coefficient of LARS."""

    momentum: Annotated[float, Shapes("step")] = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD and LARS."""

    lr: Annotated[float, Shapes("step"), Basic(), OtherNames("learning_rate")] = Field(
        default=5e-5, gt=0
    )
    """Learning rate of the student after warm-up."""

    mask_lr_ratio: Annotated[float, Shapes("step")] = Field(default=0.25, gt=0)
    """The mask model's learning rate as a multiple of the student's."""

    min_lr: Annotated[float, Shapes("step")] = Field(default=1e-6, ge=0)
    """The student's learning rate at the last iteration, reached by half a cosine."""

    total_iterations: Annotated[
        int, Shapes("step"), Basic(), OtherNames("epochs", "num_epochs", "iterations", "max_steps")
    ] = Field(default=300_000, ge=1)
    """Updates of the student in the whole run."""

    global_batch_size: Annotated[int | None, OtherNames("batch_size")] = Field(default=None, ge=2)
    """Images per update over all processes, kept when their number changes: each takes its share
    in passes of at most batch_size_per_gpu, with the same gradients; absent: batch_size_per_gpu
    times the processes."""

    warmup_iterations: Annotated[int, Shapes("step")] = Field(
        default_factory=lambda given: default_warmup(given["total_iterations"]), ge=0
    )
    """Iterations of linear warm-up; default: 10000, or a tenth of a run under 100,000."""

    weight_decay: Annotated[float, Shapes("step"), OtherNames("wd")] = Field(default=0.04, ge=0)
    """Weight decay; biases, norms, tokens and positions have none."""

    clip_grad: Annotated[float, Shapes("step"), OtherNames("grad_clip", "max_grad_norm")] = Field(
        default=1.0, ge=0
    )
    """Largest gradient norm of each network; 0 leaves gradients as they are."""

    @model_validator(mode="after")
    def _lars_scales_sgd(self) -> Self:
        if self.use_lars and self.optimizer_type != "sgd":
            raise ValueError(
                f"use_lars=True does not go with optimizer_type={self.optimizer_type}. "
                f"Use --optimizer-type sgd, or drop --use-lars."
            )
        if is_changed(self, "lars_eta") and not self.use_lars:
            raise ValueError(
                f"lars_eta={self.lars_eta} would be ignored: use_lars=False. "
                f"Add --use-lars, or drop it."
            )
        if is_changed(self, "momentum") and self.optimizer_type != "sgd":
            raise ValueError(
                f"momentum={self.momentum} would be ignored: optimizer_type="
                f"{self.optimizer_type}. Use --optimizer-type sgd, or drop it."
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.warmup_iterations >= self.total_iterations:
            raise ValueError(
                f"warmup_iterations={self.warmup_iterations} is not shorter than "
                f"total_iterations={self.total_iterations}. Lower --warmup-iterations."
            )
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr={self.min_lr} is above lr={self.lr}. Lower --min-lr, or raise --lr."
            )
        return self
