"""The log of a run as it is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adios_tme.errors import DataError
from adios_tme.run_folder.layout import METRICS

Line = dict[str, Any]


def read_metrics(run: Path) -> list[Line]:
    """Lines of a run's log by iteration; what a resumed run repeated counts as it was last.

    Raises:
        DataError: If there is no log, nothing in it, or something that is no line of metrics.
    """
    path = run / METRICS
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Give the output folder of a run."
        ) from error
    complete = text[: text.rfind("\n") + 1].splitlines()  # a killed run may end within a line
    lines: dict[int, Line] = {}
    for number, content in enumerate(complete, start=1):
        try:
            line = json.loads(content)
            lines[line["iteration"]] = line
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{path}: line {number} holds no metrics of an iteration. "
                f"Remove the line, or give the output folder of a run."
            ) from error
    if not lines:
        raise DataError(f"{path}: holds no metrics yet. Wait for the run's first log line.")
    return [lines[iteration] for iteration in sorted(lines)]
