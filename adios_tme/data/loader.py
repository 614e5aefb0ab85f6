"""Endless batches of patches: exact sharding, damage replaced, the same for any worker count.

Shape legend: B images of this rank, 3 channels, S image side in pixels.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adios_tme.data.damage import Damage, DamagedPatchError
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.index import DatasetIndex
from adios_tme.data.order import sample_rows
from adios_tme.errors import DataError

#: Damaged patches in a row after which the loader gives up.
MAX_REPLACEMENTS = 100
BATCHES_AHEAD = 4


@dataclass(frozen=True)
class Batch:
    """Images of one rank, and what could not be read on the way."""

    images: Tensor
    """uint8 (B, 3, S, S)."""
    rows: Tensor
    """int64 (B,): the patches that are shown."""
    damaged: tuple[Damage, ...]

    def pin_memory(self) -> Batch:
        """The same, in page-locked memory; called by torch's loader."""
        return Batch(self.images.pin_memory(), self.rows, self.damaged)


class PatchLoader:
    """Batches of one rank, from a given sample on, for ever.

    Samples are counted over the whole run: each global batch of R*B samples is the next stretch of
    the shuffled epochs, and rank r takes its r-th part. So every patch comes exactly once an epoch,
    whatever the number of ranks and workers, and epochs follow each other without a gap.

    Args:
        index: The patches.
        img_size: Side in pixels.
        batch_size: Images of this rank per batch.
        rank: This rank.
        num_ranks: All ranks.
        seed: Seed of the order.
        first_sample: Samples that the run has seen before.
        num_workers: Reading processes; 0 reads in this one.
        shuffle_block: See `adios_tme.data.order.shuffled_rows`.
        pin_memory: Hand over page-locked memory, for copies to a GPU.
    """

    def __init__(
        self,
        index: DatasetIndex,
        *,
        img_size: int,
        batch_size: int,
        rank: int = 0,
        num_ranks: int = 1,
        seed: int = 0,
        first_sample: int = 0,
        num_workers: int = 0,
        shuffle_block: int = 1,
        pin_memory: bool = False,
    ) -> None:
        samples = _Samples(batch_size, rank, num_ranks, first_sample)
        self._loader: DataLoader[Batch] = DataLoader(
            _Batches(PatchDataset(index, img_size), seed, shuffle_block),
            sampler=samples,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=BATCHES_AHEAD if num_workers else None,
            worker_init_fn=_leave_signals_to_the_parent if num_workers else None,
            # A generator of its own, so that starting workers does not move the run's.
            generator=torch.Generator(),
            # Workers read files and decode; forking them starts at once and shares the index.
            multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
        )
        self._batches: Iterator[Batch] | None = None

    def start(self) -> None:
        """Start the workers; best before any other thread runs."""
        self._batches = iter(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        if self._batches is None:
            self.start()
        assert self._batches is not None
        return self._batches

    def close(self) -> None:
        """Stop the workers."""
        self._batches = None


class _Samples:
    """Numbers of the first sample of each of this rank's batches, with their count."""

    def __init__(self, batch_size: int, rank: int, num_ranks: int, first_sample: int) -> None:
        self.batch_size = batch_size
        self.start = first_sample + rank * batch_size
        self.stride = num_ranks * batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((start, self.batch_size) for start in itertools.count(self.start, self.stride))


class _Batches(Dataset[Batch]):
    """Reads the batch that begins at a sample; runs in the workers."""

    def __init__(self, patches: PatchDataset, seed: int, shuffle_block: int) -> None:
        self.patches = patches
        self.seed = seed
        self.shuffle_block = shuffle_block

    def __getitem__(self, samples: tuple[int, int]) -> Batch:
        first, count = samples
        images, rows = [], []
        damaged: list[Damage] = []
        for sample in range(first, first + count):
            image, row = self._read(sample, damaged)
            images.append(image)
            rows.append(row)
        return Batch(torch.stack(images), torch.tensor(rows), tuple(damaged))

    def _read(self, sample: int, damaged: list[Damage]) -> tuple[Tensor, int]:
        """The patch of a sample, or of the next one in the order that can be read."""
        for step in range(MAX_REPLACEMENTS):
            row = self._row(sample + step)
            try:
                return self.patches[row], row
            except DamagedPatchError as error:
                patch = self.patches.index.patch(row)
                archive = patch.archive.path.relative_to(self.patches.index.root).as_posix()
                damaged.append(Damage(archive, patch.member.name, str(error)))
        raise DataError(
            f"{self.patches.index.root}: {MAX_REPLACEMENTS} patches in a row could not be read "
            f"(last: {damaged[-1].archive}, {damaged[-1].name}, {damaged[-1].reason}). "
            f"Run adios-tme index again if archives have changed."
        )

    def _row(self, sample: int) -> int:
        number = np.array([sample])
        return int(sample_rows(number, len(self.patches), self.seed, self.shuffle_block)[0])


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and a scheduler's signal reach the whole group; the parent decides what follows."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
