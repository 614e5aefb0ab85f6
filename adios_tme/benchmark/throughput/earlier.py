"""Ratios to an earlier measurement, of cases that do the same work alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adios_tme.benchmark.throughput.results import CaseResult, case_of_json
from adios_tme.errors import ConfigError, DataError

#: What is wrong with a file that lacks fields, and with one that is something else.
OLDER = (
    "does not hold all settings of its cases, as files of older versions do not, so that it cannot "
    "be told which did the same work. Measure them again with --output."
)
FOREIGN = (
    "is not a measurement of adios-tme benchmark throughput. "
    "Give a file that it wrote with --output."
)


def read_earlier(path: Path) -> list[CaseResult]:
    """The measured cases of a file that was written with ``--output``.

    Raises:
        ConfigError: If the file cannot be read.
        DataError: If it is something else, or does not tell all settings of a case.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["cases"]
        measured = [case_of_json(case) for case in saved if not case.get("out_of_memory")]
    except OSError as error:
        raise ConfigError(
            f"against={path}: cannot be read ({error.strerror}). Give the JSON of an earlier run."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {OLDER if _only_lacks_fields(error) else FOREIGN}") from error
    if not measured:
        raise DataError(f"{path}: holds no case that was measured. Give another --against.")
    return measured


def _only_lacks_fields(error: Exception) -> bool:
    return isinstance(error, ValidationError) and all(
        fault["type"] == "missing" for fault in error.errors()
    )


def compare(case: CaseResult, earlier: Sequence[CaseResult]) -> CaseResult:
    """The case with ratios to the earlier one of the same work, or what the nearest has otherwise.

    A case without figures, or with no measured one to compare with, stays as it is.

    Args:
        case: A case of this measurement.
        earlier: Those of the earlier one; later ones win.
    """
    differences = [(_differences(old, case), old.step) for old in reversed(earlier) if old.step]
    if not case.step or not differences:
        return case
    fewest, step = min(differences, key=lambda pair: len(pair[0]))
    if fewest:
        return replace(case, differs_from_earlier=fewest)
    return replace(case, against=case.step.over(step))


def _differences(old: CaseResult, new: CaseResult) -> dict[str, tuple[Any, Any]]:
    before, now = ({**case.work, "precision": case.precision} for case in (old, new))
    return {
        name: (before.get(name), now.get(name))
        for name in {**before, **now}
        if name not in before or name not in now or before[name] != now[name]
    }
