"""Which patches were seen, one line each: ``--log_samples``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from adios_tme.files import replacing
from adios_tme.run_folder.layout import SAMPLES
from adios_tme.training.batches import Batches

logger = logging.getLogger(__name__)

HEADER = "iteration,epoch,position,row\n"


class SampleLog:
    """Writes ``samples/rank_*.csv`` in the output folder: iteration, epoch, position, row.

    The row is that of the patch which was shown, another one than stands at the position where that
    one was damaged.

    Args:
        output_dir: Folder of the run.
        rank: This rank; each writes a file of its own.
        batches: How an update is shared out.
        epoch_length: Samples of an epoch.
    """

    def __init__(self, output_dir: Path, rank: int, batches: Batches, epoch_length: int) -> None:
        self._path = output_dir / SAMPLES / f"rank_{rank:05d}.csv"
        self._rank = rank
        self._batches = batches
        self._epoch_length = epoch_length
        self._has_failed = False

    def __enter__(self) -> Self:
        self._path.parent.mkdir(exist_ok=True)
        is_new = not self._path.exists()
        self._file = self._path.open("a", encoding="utf-8")
        if is_new:
            self._file.write(HEADER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._disk_may_fail():
            self._file.close()

    def write(self, iteration: int, first_sample: int, rows: list[list[int]]) -> None:
        """Note a finished update.

        Args:
            iteration: Its number, from 1.
            first_sample: Number in the whole run of its first sample.
            rows: Rows of this rank's images in each pass.
        """
        lines = []
        for number, shown in enumerate(rows):
            place = number * self._batches.num_ranks + self._rank
            sample = first_sample + place * self._batches.images_per_pass
            for row in shown:
                epoch, position = divmod(sample, self._epoch_length)
                lines.append(f"{iteration},{epoch},{position},{row}\n")
                sample += 1
        self._file.write("".join(lines))
        with self._disk_may_fail():
            self._file.flush()

    @contextmanager
    def _disk_may_fail(self) -> Iterator[None]:
        """Lose lines to a full disk, not the run; told once."""
        try:
            yield
        except OSError as error:
            if not self._has_failed:
                logger.warning(
                    "%s: cannot be written (%s), so that it misses samples; training goes on.",
                    self._path,
                    error.strerror,
                )
            self._has_failed = True


def roll_back(output_dir: Path, iteration: int) -> None:
    """Drop what was noted after an iteration, so that the files tell of the surviving history."""
    for path in (output_dir / SAMPLES).glob("rank_*.csv"):
        with (
            replacing(path) as partial,
            path.open(encoding="utf-8") as old,
            partial.open("w", encoding="utf-8") as new,
        ):
            new.writelines(_until(iteration, old))


def _until(iteration: int, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        is_whole = line.endswith("\n") and line.count(",") == HEADER.count(",")
        number = line.partition(",")[0]
        if line == HEADER or (is_whole and number.isdecimal() and int(number) <= iteration):
            yield line
