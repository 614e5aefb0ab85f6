"""The output folder of ``adios-tme segment``: whose nuclei it holds, and what is finished."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adios_tme.errors import ConfigError, DataError
from adios_tme.files import write_whole, writing
from adios_tme.inference.segment.nuclei import Chosen
from adios_tme.run_folder.layout import PARTIAL_FILES

SUMMARY = "summary.csv"
#: Says of which model, and with which settings, the nuclei of a folder are.
IDENTITY = "segment.json"
#: Settings that change no number, or of which each file keeps account by itself.
_FREE = {"run", "input", "output", "device"}


class Record(NamedTuple):
    """What is finished of an input; a row of the summary."""

    name: str
    num_nuclei: int
    mean_area: float
    """In square microns where the scale is known, else in pixels."""
    area_mm2: float | None
    """Tissue of a slide; of images, all that they show."""
    per_mm2: float | None
    num_left_out: int
    """Patches that could not be read."""
    microns_per_pixel: float | None
    """At which the model looked."""
    digest: str
    """Of the input."""


def identity_of(settings: Mapping[str, Any], weights: str) -> dict[str, Any]:
    """What shapes the numbers and files of a folder.

    Args:
        settings: All of them, as plain values.
        weights: Digest of the model's.
    """
    return {"weights": weights} | {k: v for k, v in settings.items() if k not in _FREE}


def claim_folder(folder: Path, identity: Mapping[str, Any]) -> Chosen | None:
    """See that a folder is empty or that of one model; what a killed process left goes.

    Returns:
        What was chosen when it was begun; None for a new one.

    Raises:
        ConfigError: If it holds results of another model, or with other settings.
        DataError: If it cannot be read.
    """
    path = folder / IDENTITY
    if not path.exists():
        return None
    for partial in folder.glob(f"**/{PARTIAL_FILES}"):
        partial.unlink(missing_ok=True)
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        chosen = Chosen(int(there["chosen"]["channel"]) - 1, float(there["chosen"]["threshold"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read, so that it is not known whose nuclei lie there. "
            f"Give another --output, or remove that folder."
        ) from error
    for name, value in identity.items():
        if there.get(name) != value:
            what = (
                "of another mask model" if name == "weights" else f"with {name}={there.get(name)}"
            )
            asked = "" if name == "weights" else f", and {name}={value} is asked for"
            raise ConfigError(
                f"{folder}: holds nuclei {what}{asked}. Give another --output, or remove that "
                f"folder."
            )
    return chosen


def write_identity(folder: Path, identity: Mapping[str, Any], chosen: Chosen) -> None:
    """Make a folder that of a model, with what was chosen.

    Raises:
        DataError: If it cannot be written.
    """
    said = {"channel": chosen.channel + 1, "threshold": chosen.threshold}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / IDENTITY, json.dumps({**identity, "chosen": said}, indent=2) + "\n")


def read_summary(folder: Path) -> dict[str, Record]:
    """What is finished, by name; nothing where nothing is.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / SUMMARY
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            records = [_parse(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Remove it, and all is segmented again."
        ) from error
    return {record.name: record for record in records}


def _parse(row: Mapping[str, str]) -> Record:
    area, density, microns = (
        float(row[name]) if row[name] else None
        for name in ("area_mm2", "per_mm2", "microns_per_pixel")
    )
    count, left_out = int(row["num_nuclei"]), int(row["num_left_out"])
    mean = float(row["mean_area"])
    return Record(row["name"], count, mean, area, density, left_out, microns, row["digest"])


def write_summary(folder: Path, records: Iterable[Record]) -> None:
    """Write what is finished.

    Raises:
        OSError: If it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Record._fields)
    writer.writerows(["" if value is None else value for value in record] for record in records)
    write_whole(folder / SUMMARY, text.getvalue())
