"""Lines of JSON in the output folder: the record that every run has."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adios_tme.run_folder.layout import METRICS

logger = logging.getLogger(__name__)


class JsonLinesTracker:
    """Appends to ``metrics.jsonl``; settings and pictures have files of their own there.

    Args:
        output_dir: Folder of the run.
    """

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / METRICS

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Nothing: ``config.yaml`` holds them."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Append a line; a full disk costs the line and a warning, not the run."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(values)) + "\n")
        except OSError as error:
            logger.warning(
                "%s: cannot be written (%s); training goes on.", self.path, error.strerror
            )

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Nothing: they are files of the folder already."""

    def finish(self, *, failed: bool = False) -> None:
        """Nothing is open."""
