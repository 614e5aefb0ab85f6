"""The log of a run as it is read back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adios_tme.errors import DataError
from adios_tme.run_folder.layout import METRICS

Line = dict[str, Any]


def read_metrics(run: Path) -> list[Line]:
    """Lines of a run's log by iteration; what a resumed run repeated counts as it was last.

    Raises:
        DataError: As `read_lines`.
    """
    return last_of_each(read_lines(run))


def last_of_each(lines: Iterable[Line]) -> list[Line]:
    """The last line of each iteration, by iteration."""
    by_iteration = {line["iteration"]: line for line in lines}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def read_lines(run: Path) -> list[Line]:
    """Lines of a run's log in the order in which they were written.

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
    lines: list[Line] = []
    for number, content in enumerate(complete, start=1):
        try:
            line = json.loads(content)
            hash(line["iteration"])
            lines.append(line)
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{path}: line {number} holds no metrics of an iteration. "
                f"Remove the line, or give the output folder of a run."
            ) from error
    if not lines:
        raise DataError(f"{path}: holds no metrics yet. Wait for the run's first log line.")
    return lines
