"""What a tracker is; the names are those of Accelerate's ``GeneralTracker``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Takes what a run measures; only the first rank has one."""

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the resolved settings, before the first line."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Take a line of metrics.

        Args:
            values: Numbers, lists of numbers, or None for what is not finite.
            step: Finished updates.
        """

    def log_images(self, values: Mapping[str, Path], step: int) -> None:
        """Take pictures by name, as files that are written already."""

    def finish(self) -> None:
        """Close, after the last line."""
