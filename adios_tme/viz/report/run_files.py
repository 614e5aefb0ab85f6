"""What the folder of a run tells, read once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adios_tme.errors import DataError
from adios_tme.run_folder.layout import CORRUPT, ENVIRONMENT, LOG, MASK_PICTURES, NUCLEI, SETTINGS
from adios_tme.run_folder.metrics import Line, last_of_each, read_lines
from adios_tme.viz.report.history import History, read_history

NUCLEI_RESULTS = "nuclei_benchmark.json"
PROBE_RESULTS = "probe.json"

Tree = dict[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """A run as its files tell it."""

    folder: Path
    settings: Tree
    """By section, as in ``config.yaml``; empty where there is none."""
    environment: Tree
    lines: list[Line]
    history: History
    corrupt: list[Tree]
    pictures: list[Path]
    """Of the masks, oldest first."""
    nuclei: Tree | None
    """Results of the nuclei benchmark."""
    probe: Tree | None
    """Results of the probe."""

    def setting(self, section: str, name: str, default: Any = None) -> Any:
        """A setting as the run had it."""
        return (self.settings.get(section) or {}).get(name, default)

    @property
    def iteration(self) -> int:
        """The last one that was logged."""
        return int(self.lines[-1]["iteration"])


def read_run(folder: Path, nuclei: Path | None = None, probe: Path | None = None) -> RunFiles:
    """Read all that a report tells of a run.

    Args:
        folder: Its output folder.
        nuclei: Results of the nuclei benchmark; absent: those in the folder, if any.
        probe: Results of the probe; likewise.

    Raises:
        DataError: If it has no metrics, or a file is damaged.
    """
    written = read_lines(folder)
    return RunFiles(
        folder=folder,
        settings=read_settings(folder),
        environment=_optional(folder / ENVIRONMENT) or {},
        lines=last_of_each(written),
        history=read_history(folder / LOG, written),
        corrupt=_corrupt(folder / CORRUPT),
        pictures=sorted((folder / MASK_PICTURES).glob("iter_*.png")),
        nuclei=_results(nuclei, folder, NUCLEI, NUCLEI_RESULTS, ("protocol", "checkpoints")),
        probe=_results(probe, folder, "probe", PROBE_RESULTS, ("sets",)),
    )


def read_settings(folder: Path) -> Tree:
    """Settings of a run by section; empty where they are not kept.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / SETTINGS
    return _mapping(path, yaml.safe_load) if path.is_file() else {}


@contextmanager
def results_read(name: str) -> Iterator[None]:
    """Turn a file of results of another form into a message while the block reads it.

    Raises:
        DataError: If what the block looks for is not there.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{name}: is of another form than this version writes. Run that benchmark again, "
            f"or remove the file."
        ) from error


def _results(
    given: Path | None, folder: Path, room: str, name: str, needed: tuple[str, ...]
) -> Tree | None:
    """The results that are given, or those in the folder of the run or its usual place there."""
    places = [given] if given else [folder / name, folder / room / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None and given:
        raise DataError(f"{given}: is no file. Give {name} as the benchmark wrote it.")
    tree = _optional(path) if path else None
    if tree is not None and not all(tree.get(key) for key in needed):
        raise DataError(f"{path}: holds no results. Give {name} as the benchmark wrote it.")
    return tree


def _optional(path: Path) -> Tree | None:
    return _mapping(path, json.loads) if path.is_file() else None


def _mapping(path: Path, parse: Any) -> Tree:
    try:
        tree = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Give a folder that can be read."
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: is damaged. Remove it, or write it again.") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: is damaged. Remove it, or write it again.")
    return tree


def _corrupt(path: Path) -> list[Tree]:
    """Patches that could not be read; a line that was cut short tells nothing."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            found.append({key: str(entry[key]) for key in ("archive", "name", "reason")})
        except (ValueError, LookupError, TypeError):
            continue
    return found
