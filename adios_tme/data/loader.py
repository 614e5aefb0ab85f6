"""Endless batches of patches: exact sharding, damage replaced, the same for any worker count."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.corrupt import CorruptPatch
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index import DatasetIndex
from adios_tme.data.members import printable
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.order import Rows
from adios_tme.data.slides.slide import OPEN_SLIDES
from adios_tme.data.slots import READ_TIMEOUT_SECONDS, Planned, Reading, SlotLoader
from adios_tme.errors import DataError

#: Damaged patches in a row after which the loader gives up.
MAX_REPLACEMENTS = 100
#: Batches whose patches are worked out together.
BATCHES_PLANNED = 64


class PatchLoader(SlotLoader):
    """Batches of one rank, from a given sample on, for ever.

    Samples are counted over the whole run: each global batch of R*B samples is the next stretch of
    the shuffled epochs, and rank r takes its r-th part. So every patch comes exactly once an epoch,
    whatever the number of ranks and workers, and epochs follow each other without a gap.

    Args:
        index: The patches; one index, or several as one.
        img_size: Side in pixels.
        batch_size: Images of this rank per batch.
        rank: This rank.
        num_ranks: All ranks.
        seed: Seed of the order.
        first_sample: Samples that the run has seen before.
        num_workers: Reading processes; 0 reads in this one.
        shuffle_block: See `adios_tme.data.order.shuffled_rows`.
        resize_in_worker: Hand over images of img_size; else as they are, and `Batch.on` resizes.
        pin_memory: Hand over page-locked memory, for copies to a GPU.
        read_timeout_seconds: How long a worker may be at one patch.
        open_slides: Slides that each worker keeps open.

    Raises:
        LaunchError: While batches are taken: if a worker was killed or stopped, or takes too long.
        DataError: Then: if none of many patches can be read, or one for an unforeseen reason.
    """

    def __init__(
        self,
        index: DatasetIndex | PatchMixture,
        *,
        img_size: int,
        batch_size: int,
        rank: int = 0,
        num_ranks: int = 1,
        seed: int = 0,
        first_sample: int = 0,
        num_workers: int = 0,
        shuffle_block: int = 1,
        resize_in_worker: bool = True,
        pin_memory: bool = False,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        open_slides: int = OPEN_SLIDES,
    ) -> None:
        mix = index if isinstance(index, PatchMixture) else PatchMixture([index])
        order = _Order(mix, seed, shuffle_block)
        reading = Reading(
            img_size, batch_size, num_workers, resize_in_worker, pin_memory, read_timeout_seconds
        )
        plan = _Plan(order, batch_size, rank, num_ranks, first_sample, reading.num_slots)
        super().__init__(PatchDataset(mix, img_size, open_slides), reading, plan, order)


@dataclass(frozen=True)
class _Order:
    """Which patch each sample of the run is, and which takes its place."""

    mix: PatchMixture
    seed: int
    shuffle_block: int

    def rows(self, samples: NDArray[np.integer]) -> Rows:
        return self.mix.rows(samples, self.seed, self.shuffle_block)

    def candidates(self, sample: int, planned: int) -> Iterator[int]:
        """The planned row, then those of the next samples."""
        yield planned
        for step in range(1, MAX_REPLACEMENTS):
            (row,) = self.rows(np.array([sample + step])).tolist()
            yield row

    def none_left(self, damaged: Sequence[CorruptPatch]) -> None:
        """Stop the run."""
        last = damaged[-1]
        raise DataError(
            f"{last.archive}: {MAX_REPLACEMENTS} patches in a row could not be read "
            f"(last: {printable(last.name)}, {last.reason}). "
            f"Run adios-tme index again if archives have changed."
        )


class _Plan:
    """This rank's batches, worked out by the training process, many at a time."""

    def __init__(
        self,
        order: _Order,
        batch_size: int,
        rank: int,
        num_ranks: int,
        first_sample: int,
        num_slots: int,
    ) -> None:
        self.order = order
        self.start = first_sample + rank * batch_size
        self.stride = num_ranks * batch_size
        self.batch = np.arange(batch_size)
        self.num_slots = num_slots

    def __iter__(self) -> Iterator[Planned]:
        for begin in itertools.count(0, BATCHES_PLANNED):
            numbers = np.arange(begin, begin + BATCHES_PLANNED)
            firsts = self.start + numbers * self.stride
            rows = self.order.rows(firsts[:, np.newaxis] + self.batch)
            slots = numbers % self.num_slots
            yield from zip(slots.tolist(), firsts.tolist(), rows.tolist(), strict=True)
