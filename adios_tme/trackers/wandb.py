"""Weights & Biases; ``WANDB_MODE=offline`` and its other variables are honoured."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adios_tme.trackers.base import RunToTrack

#: A question for an API key, on a terminal, waits no longer.
LOGIN_SECONDS = 1.0


class WandbTracker:
    """Logs to one run, which keeps the first value of each step.

    Args:
        run: What to track.
    """

    def __init__(self, run: RunToTrack) -> None:
        import wandb

        self._wandb = wandb
        wishes = {
            "silent": True,
            "console": "off",
            "login_timeout": LOGIN_SECONDS,
            "init_timeout": 0.8 * run.limit_seconds,  # so that the reason is its own
            "finish_timeout": run.limit_seconds,
        }
        fields = wandb.Settings.model_fields
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.run_id or uuid.uuid4().hex[:8],
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(run.output_dir),
            settings=wandb.Settings(
                **{name: value for name, value in wishes.items() if name in fields}
            ),
        )
        self.run_id = str(self._run.id)
        # What an earlier process had sent; without a network only our own notes tell.
        self.last_step = None if self._run.offline else max(0, self._run.starting_step - 1)
        folder = Path(self._run.dir).parent
        self.where = f"wandb sync {folder}" if self._run.offline else str(self._run.url)

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the settings; those of a resumed run take the place of the earlier ones."""
        self._run.config.update(dict(values), allow_val_change=True)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Send the numbers of a line."""
        self._run.log(dict(values), step=step)

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Send pictures."""
        pictures = {name: self._wandb.Image(str(path)) for name, path in values.items()}
        self._run.log(pictures, step=step)

    def finish(self, *, failed: bool = False) -> None:
        """End the run, or mark it as failed."""
        self._run.finish(exit_code=int(failed))


open_run = WandbTracker
