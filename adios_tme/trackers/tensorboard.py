"""TensorBoard: event files in the output folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adios_tme.run_folder.layout import TENSORBOARD
from adios_tme.trackers.base import RunToTrack


class TensorBoardTracker:
    """Writes with torch's ``SummaryWriter``; readers drop what came after a resumed checkpoint.

    Args:
        run: What to track.
    """

    def __init__(self, run: RunToTrack) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.output_dir / TENSORBOARD
        self.run_id = folder.name
        self.where = f"tensorboard --logdir {folder}"
        self.last_step = run.iteration  # what came after it is purged
        self._writer = SummaryWriter(folder, purge_step=run.iteration + 1)

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Show the settings as a text."""
        indented = "\n".join(f"    {line}" for line in json.dumps(values, indent=2).splitlines())
        self._writer.add_text("settings", indented, self.last_step + 1)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Write the numbers of a line, and leave none of them in a buffer."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Write pictures."""
        for name, path in values.items():
            with Image.open(path) as picture:
                pixels_HWC = np.asarray(picture.convert("RGB"))
            self._writer.add_image(name, pixels_HWC, step, dataformats="HWC")
        self._writer.flush()

    def finish(self, *, failed: bool = False) -> None:
        """Close the file."""
        self._writer.close()


open_run = TensorBoardTracker
