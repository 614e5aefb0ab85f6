"""Which runs of the trackers belong to an output folder, and how far each has been told."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

from adios_tme.files import write_whole

logger = logging.getLogger(__name__)


class RunIds:
    """Kept in ``trackers.json``; a disk that does not take it costs a warning, not the run.

    Args:
        path: The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._runs = _read(path)

    def run_id(self, tracker: str) -> str | None:
        """The run of a tracker to go on in; None where there is none yet."""
        known = self._runs.get(tracker)
        return known["id"] if known else None

    def open(self, tracker: str, run_id: str) -> int:
        """Keep the run that a tracker has opened, and return the last step that it was told."""
        with self._lock:
            if self.run_id(tracker) != run_id:
                self._runs[tracker] = {"id": run_id, "last_step": 0}
            self._write()
            return int(self._runs[tracker]["last_step"])

    def note(self, tracker: str, step: int) -> None:
        """Take note of the step that a tracker is about to be told."""
        with self._lock:
            self._runs[tracker]["last_step"] = step
            self._write()

    def _write(self) -> None:
        try:
            write_whole(self._path, json.dumps(self._runs, indent=2) + "\n")
        except OSError as error:
            logger.warning(
                "%s: cannot be written (%s); training goes on.", self._path, error.strerror
            )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The runs of a file; none, and a warning, where it is damaged."""
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(name): {"id": str(run["id"]), "last_step": int(run["last_step"])}
            for name, run in runs.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not what was written"
        logger.warning("%s: cannot be read (%s); trackers begin new runs.", path, reason)
        return {}
