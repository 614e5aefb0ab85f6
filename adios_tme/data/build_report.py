"""What building an index has found: how much was taken, what was left out, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from adios_tme.data.index import DatasetIndex
from adios_tme.data.left_out import LEFT_OUT, REASONS, LeftOut
from adios_tme.data.members import Kind, printable
from adios_tme.data.names import follows_pattern
from adios_tme.data.scan import NUM_NAMES_SHOWN
from adios_tme.data.selection import describe
from adios_tme.data.sources import Fault, Found
from adios_tme.errors import DataError

#: Share of the images under which the rule of selection is most likely not the one that was meant.
LEAST_TAKEN = 0.9
#: Names that are held against ``--name-pattern``, to tell whether it was meant for them.
NUM_NAMES_TRIED = 1000
#: Archives and folders without access that are named one by one.
NUM_FAULTS_SHOWN = 20


class Notice(NamedTuple):
    """A sentence about what was left out."""

    text: str
    is_urgent: bool


@dataclass(frozen=True)
class BuildReport:
    """What building the index found."""

    index: DatasetIndex
    num_scanned: int
    faults: tuple[Fault, ...]
    left_out: LeftOut
    """All that is not in the index, archives and folders with faults included."""
    sizes_are_unsaid: bool
    """See `Found.sizes_are_unsaid`."""
    num_unmatched: int
    """Names that ``--name-pattern`` does not match, of those that were tried."""

    @property
    def num_images(self) -> int:
        """Images whose names were held against the rule of selection."""
        return len(self.index) + self.left_out.count("rule")

    def notices(self) -> list[Notice]:
        """What was left out, in sentences for the terminal and the log."""
        taken, images = len(self.index), self.num_images
        is_little = taken < LEAST_TAKEN * images
        notices = []
        if self.sizes_are_unsaid:
            text = (
                f"No name in these folders states a size, so all {taken:,} images are taken. "
                f"Choose some with --pattern or --patch-size-px."
            )
            notices.append(Notice(text, False))
        if taken < images:
            rule = describe(self.index.selection)
            text = f"Took {taken:,} of {images:,} images. Asked for {rule}."
            notices.append(Notice(text, is_little))
        for fault in self.faults[:NUM_FAULTS_SHOWN]:
            notices.append(Notice(f"{LEFT_OUT}: {fault.message}", True))
        for reason, line in self.left_out.items():
            if reason != "unreadable" or len(self.faults) > NUM_FAULTS_SHOWN:
                urgent = is_little if reason == "rule" else REASONS[reason].is_urgent
                notices.append(Notice(line, urgent))
        if self.num_unmatched:
            text = (
                f"--name-pattern does not match {self.num_unmatched:,} of "
                f"{min(len(self.index), NUM_NAMES_TRIED):,} names that were tried; what it has "
                f"groups for stays unknown of them."
            )
            notices.append(Notice(text, True))
        return notices

    def log(self, logger: logging.Logger) -> None:
        """Say what was read and left out; what is most likely a mistake as a warning."""
        if self.num_scanned:
            some = "" if self.num_scanned >= self.index.num_archives else f"{self.num_scanned} of "
            logger.info("Indexed %s%s in %s", some, self.index.sources, self.index.path)
        for text, is_urgent in self.notices():
            logger.log(logging.WARNING if is_urgent else logging.INFO, "%s", text)

    def as_json(self) -> dict[str, Any]:
        """What was left out, as plain values."""
        return {
            "num_images": self.num_images,
            "faults": [fault.message for fault in self.faults],
            "left_out": self.left_out.as_json(),
        }


def report_on(index: DatasetIndex, num_scanned: int, found: Found) -> BuildReport:
    """The same report of the same index, whether it has just been built or was up to date.

    Args:
        index: The index.
        num_scanned: Archives and folders that were read for it.
        found: All sources, and what stands beside them.

    Raises:
        DataError: If the pattern of names fits none of them.
    """
    left_out = LeftOut()
    left_out.merge(index.left_out())
    left_out.merge(found.left_out)
    names = (str(fault.path) for fault in found.faults)
    left_out.add("unreadable", names, len(found.faults))
    return BuildReport(
        index,
        num_scanned,
        tuple(found.faults),
        left_out,
        found.sizes_are_unsaid,
        _num_unmatched(index),
    )


def _num_unmatched(index: DatasetIndex) -> int:
    """How many of some names ``--name-pattern`` does not match.

    Raises:
        DataError: If it matches none.
    """
    pattern = index.selection.name_pattern
    if pattern is None:
        return 0
    rows = np.linspace(0, len(index) - 1, min(len(index), NUM_NAMES_TRIED), dtype=np.int64)
    patches = index.patches(rows)
    names = [patch.member.name for patch in patches if patch.archive.kind != Kind.SLIDE]
    if not names:
        return 0
    unmatched = [name for name in names if not follows_pattern(name, pattern)]
    if len(unmatched) == len(names):
        shown = ", ".join(map(printable, names[:NUM_NAMES_SHOWN]))
        raise DataError(
            f"{index.root}: --name-pattern {pattern!r} matches no name there; they are like "
            f"{shown}. Change the pattern, or drop it."
        )
    return len(unmatched)
