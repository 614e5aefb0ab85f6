"""Batches of given patches, each once and in order; what cannot be read is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.corrupt import CorruptPatch
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index import DatasetIndex
from adios_tme.data.slots import Batch, Planned, Reading, SlotLoader


class RowLoader(SlotLoader):
    """The patches of given rows, batch by batch.

    Batch k shows those of ``rows[k * B : (k + 1) * B]`` that can be read, in this order; its
    ``rows`` tell which. The numbers do not depend on the batch size or the workers.

    Args:
        index: The patches.
        rows: Those that are read.
        reading: How.

    Raises:
        LaunchError: While batches are taken: if a worker was killed or stopped, or takes too long.
        DataError: Then: if one cannot be read for an unforeseen reason.
    """

    def __init__(self, index: DatasetIndex, rows: NDArray[np.int64], reading: Reading) -> None:
        self.num_batches = math.ceil(len(rows) / reading.batch_size)
        plan = _Plan(rows, reading.batch_size, reading.num_slots)
        super().__init__(PatchDataset(index, reading.img_size), reading, plan, _LeaveOut())

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(super().__iter__(), self.num_batches)


class _Plan:
    """Rows in batches, then empty ones for the workers that ask ahead."""

    def __init__(self, rows: NDArray[np.int64], batch_size: int, num_slots: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.num_slots = num_slots

    def __iter__(self) -> Iterator[Planned]:
        for number in count():
            first = number * self.batch_size
            rows = self.rows[first : first + self.batch_size].tolist()
            yield number % self.num_slots, first, rows


class _LeaveOut:
    """Nothing takes the place of a patch that cannot be read."""

    def candidates(self, sample: int, planned: int) -> tuple[int]:
        """The planned row alone."""
        return (planned,)

    def none_left(self, damaged: Sequence[CorruptPatch]) -> None:
        """Leave it out; the batch tells."""
