"""Patches that cannot be read: told once, counted, and too many of them stop the run."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from adios_tme.errors import DataError

logger = logging.getLogger(__name__)

#: Patches over which the corrupt share is taken at least, so that one bad patch among the first
#: few does not stop a run.
FEWEST_JUDGED = 1000


class CorruptPatchError(Exception):
    """Why one patch cannot be read; never leaves the data room."""


class ChangedSinceIndexedError(CorruptPatchError):
    """What holds the patch is not what was indexed, so that a new index may find it whole."""


def unforeseen(error: BaseException, place: str) -> DataError:
    """An error that no reader expects of an input, as a message that a report can start from.

    Args:
        error: What was raised.
        place: What was read.
    """
    if isinstance(error, MemoryError):
        return DataError(
            f"{place}: not enough memory to read it. "
            f"Free memory, or lower --num-workers or --batch-size-per-gpu."
        )
    kind = traceback.format_exception_only(error)[-1].strip().splitlines()[0][:200]
    at = traceback.extract_tb(error.__traceback__)[-1]
    return DataError(
        f"{place}: cannot be read, for a reason that nobody foresaw ({kind}; in {at.name}, "
        f"{Path(at.filename).name} line {at.lineno}). Please report it with this message, and "
        f"leave that patch out until it is mended."
    )


@dataclass(frozen=True)
class CorruptPatch:
    """A patch that could not be read, and why."""

    archive: str
    name: str
    reason: str


class CorruptLog:
    """Keeps ``corrupt.jsonl``: one line for each damaged patch, also over several runs.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_corrupt = 0
        self._known = set(self._read())

    def record(self, damages: Iterable[CorruptPatch]) -> list[CorruptPatch]:
        """Count damaged patches, write down the new ones, and return those."""
        told = list(damages)
        self.num_corrupt += len(told)
        return self.note(told)

    def note(self, damages: Iterable[CorruptPatch]) -> list[CorruptPatch]:
        """Write down what is new without counting it, as for an archive as a whole.

        Such an entry has no name of a patch.
        """
        new = []
        for damage in damages:
            if (damage.archive, damage.name) not in self._known:
                self._known.add((damage.archive, damage.name))
                new.append(damage)
        try:
            self._append(new)
        except OSError as error:
            logger.warning("%s: cannot be written (%s).", self.path, error.strerror)
        return new

    def _append(self, damages: list[CorruptPatch]) -> None:
        if damages:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(damage)) + "\n" for damage in damages)

    def check(self, num_seen: int, max_fraction: float) -> None:
        """Raise when too many patches were damaged.

        Args:
            num_seen: Patches read so far, damaged ones included.
            max_fraction: Share of them that may be corrupt, over a thousand at least.

        Raises:
            DataError: Naming the count, the share and the log.
        """
        allowed = max_fraction * max(num_seen, FEWEST_JUDGED)
        if self.num_corrupt > allowed:
            raise DataError(
                f"{self.num_corrupt} of {num_seen} patches could not be read, more than the "
                f"fraction {max_fraction} allows. They are listed in {self.path}. "
                f"Mend or remove those archives, or raise --max-corrupt-fraction."
            )

    def _read(self) -> list[tuple[str, str]]:
        if not self.path.exists():
            return []
        known = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                known.append((str(entry["archive"]), str(entry["name"])))
            except (ValueError, LookupError, TypeError):
                continue  # cut short when a process was killed; the patch is told once more
        return known
