"""MLflow, at ``MLFLOW_TRACKING_URI`` or where MLflow keeps runs without it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adios_tme.trackers.base import RunToTrack, flat

#: What MLflow takes in one call.
MAX_PARAMS = 100
SETTINGS_ARTIFACT = "config.json"

logger = logging.getLogger(__name__)


class MlflowTracker:
    """Logs to one run of an experiment through ``MlflowClient``.

    Args:
        run: What to track.
    """

    last_step = None

    def __init__(self, run: RunToTrack) -> None:
        import mlflow

        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient()
        known = self._reopened(run.run_id)
        self._is_new = known is None
        self.run_id: str = known or self._created(run)
        self.where = f"experiment {run.project} in {mlflow.get_tracking_uri()}"

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the settings as an artifact, and those of the first start as parameters.

        MLflow does not change parameters.
        """
        self._client.log_dict(self.run_id, dict(values), SETTINGS_ARTIFACT)
        if not self._is_new:
            return
        params = [self._entities.Param(name, str(value)) for name, value in flat(values)]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self.run_id, params=params[first : first + MAX_PARAMS])

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Send the numbers of a line in one call."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Send pictures, as MLflow shows them by step."""
        for name, path in values.items():
            with Image.open(path) as picture:
                pixels_HWC = np.asarray(picture.convert("RGB"))
            self._client.log_image(self.run_id, pixels_HWC, key=name, step=step)

    def finish(self, *, failed: bool = False) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")

    def _reopened(self, run_id: str | None) -> str | None:
        """The run to go on in, running again; None where this MLflow does not have it."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            is_there = self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            is_there = False
        if not is_there:
            logger.warning("mlflow: run %s is not there any more; a new one begins.", run_id)
            return None
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _created(self, run: RunToTrack) -> str:
        experiment = self._client.get_experiment_by_name(run.project)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        )
        created = self._client.create_run(experiment_id, run_name=run.name)
        return str(created.info.run_id)


open_run = MlflowTracker
