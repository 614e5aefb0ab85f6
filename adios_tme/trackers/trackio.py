"""trackio, on this machine or in a Space of Hugging Face (``TRACKIO_SPACE_ID``)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adios_tme.trackers.base import RunToTrack, flat


class TrackioTracker:
    """Logs to one run, which trackio finds by its name.

    Args:
        run: What to track.
    """

    last_step = None

    def __init__(self, run: RunToTrack) -> None:
        import trackio

        self._trackio = trackio
        # Names may be used twice there, and what resumes takes the newest of that name.
        name = run.run_id or f"{run.name}-{uuid.uuid4().hex[:6]}"
        self._run = trackio.init(project=run.project, name=name, resume="allow", embed=False)
        self.run_id = str(self._run.name)
        self.where = f"trackio show --project {run.project}"

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the settings, which trackio sends with the first line."""
        self._run.config.update(flat(values))

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Send the numbers of a line."""
        self._run.log(dict(values), step=step)

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Send pictures."""
        pictures = {name: self._trackio.Image(path) for name, path in values.items()}
        self._run.log(pictures, step=step)

    def finish(self, *, failed: bool = False) -> None:
        """Wait until everything is sent; trackio has no word for a run that failed."""
        self._run.finish()


open_run = TrackioTracker
