"""Where metrics and pictures go beside the output folder."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import Config, is_changed

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrackingConfig(Config):
    """Trackers beside metrics.jsonl."""

    trackers: tuple[TrackerName, ...] = ()
    """Send metrics and mask pictures to these as well, each with a flag of its own, as in
    `--trackers tensorboard --trackers wandb`; each needs the extra of its name. One that fails or
    hangs is switched off, and training goes on."""

    tracker_project: str = Field(default="adios_tme", min_length=1)
    """Project of Weights & Biases and trackio, experiment of MLflow, under which runs are grouped
    there; TensorBoard has none."""

    tracker_run_name: str | None = Field(default=None, min_length=1)
    """What the run is called there; absent: the output folder's name."""

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, trackers: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        for name in trackers:
            if trackers.count(name) > 1:
                raise ValueError(f"{name} is given {trackers.count(name)} times. Give it once.")
        return trackers

    @model_validator(mode="after")
    def _names_are_shown_somewhere(self) -> Self:
        for name in ("tracker_project", "tracker_run_name"):
            if is_changed(self, name) and not set(self.trackers) - {"tensorboard"}:
                raise ValueError(
                    f"{name} would be ignored: trackers={' '.join(self.trackers) or None} shows no "
                    f"names. Drop it, or add --trackers wandb, mlflow or trackio."
                )
        return self
