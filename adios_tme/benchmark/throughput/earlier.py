"""Ratios to an earlier measurement, of cases that do the same work alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adios_tme.errors import ConfigError, DataError

#: What ratios are taken of, and what tells that the work was the same.
NEEDED = {"work", "precision", "images_per_second", "gflop_per_image", "peak_memory_gib"}


def read_earlier(path: Path) -> list[dict[str, Any]]:
    """The cases of a measurement that was written with ``--output``.

    Raises:
        ConfigError: If the file cannot be read.
        DataError: If it is something else, or does not tell all settings of a case.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["cases"]
        measured = [case for case in saved if not case.get("out_of_memory")]
        known = [set(case) for case in measured]
    except OSError as error:
        raise ConfigError(
            f"against={path}: cannot be read ({error.strerror}). Give the JSON of an earlier run."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is not a measurement of adios-tme benchmark throughput. "
            f"Give a file that it wrote with --output."
        ) from error
    if not all(names >= NEEDED for names in known):
        raise DataError(
            f"{path}: does not hold all settings of its cases, as files of older versions do not, "
            f"so that it cannot be told which did the same work. Measure them again with --output."
        )
    if not measured:
        raise DataError(f"{path}: holds no case that was measured. Give another --against.")
    return measured


def compare(result: dict[str, Any], earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios to the earlier case of the same work, or what the most similar one does otherwise.

    Args:
        result: A measured case.
        earlier: Measured cases, at least one; later ones win.

    Returns:
        ``against`` with ratios, or ``differs_from_earlier`` with pairs of earlier and present
        values by the setting's path.
    """
    differences = [(_differences(case, result), case) for case in reversed(earlier)]
    fewest, case = min(differences, key=lambda pair: len(pair[0]))
    return {"differs_from_earlier": fewest} if fewest else {"against": ratio(result, case)}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    before, now = ({**case["work"], "precision": case["precision"]} for case in (old, new))
    return {
        name: [before.get(name), now.get(name)]
        for name in {**before, **now}
        if name not in before or name not in now or before[name] != now[name]
    }


def ratio(fast: dict[str, Any], other: dict[str, Any]) -> dict[str, float | None]:
    """How many times as fast, as much arithmetic and as much memory the first is."""
    memory, others = fast["peak_memory_gib"], other["peak_memory_gib"]
    return {
        "speed": fast["images_per_second"] / other["images_per_second"],
        "flops": fast["gflop_per_image"] / other["gflop_per_image"],
        "memory": memory / others if memory and others else None,
    }
