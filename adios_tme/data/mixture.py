"""Several indexes as one training set, each patch shown as often as its root's weight says.

An epoch of the mix takes ``round(weight * n)`` samples of a root with n patches. Which ones follows
from the sample's number alone: the epoch is shuffled as a whole, and what falls to a root goes on
in that root's own shuffled order, so that each of its patches comes once before any comes twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.corrupt import CorruptPatch
from adios_tme.data.index import DatasetIndex, Patch
from adios_tme.data.members import kinds_in_words
from adios_tme.data.order import Rows, sample_rows


class PatchMixture:
    """One training set from several indexes; rows count through them one after the other.

    Args:
        indexes: The patches of each root.
        weights: How often a patch of each root is shown an epoch; default: once.
    """

    def __init__(self, indexes: Sequence[DatasetIndex], weights: Sequence[float] = ()) -> None:
        self.indexes = tuple(indexes)
        lengths = np.array([len(index) for index in self.indexes])
        shares = np.array(weights or [1.0] * len(self.indexes)) * lengths
        self._row_ends: Rows = np.cumsum(lengths)
        self._sample_ends: Rows = np.cumsum(np.maximum(1, np.rint(shares).astype(np.int64)))

    def __len__(self) -> int:
        return int(self._row_ends[-1])

    @property
    def epoch_length(self) -> int:
        """Samples of an epoch."""
        return int(self._sample_ends[-1])

    @property
    def num_archives(self) -> int:
        """Archives of all roots."""
        return sum(index.num_archives for index in self.indexes)

    @property
    def sources(self) -> str:
        """How many archives, folders and slides all roots have, in words."""
        kinds = (index.columns["archive_kind"].tolist() for index in self.indexes)
        return kinds_in_words(itertools.chain.from_iterable(kinds))

    def content(self) -> dict[str, Any]:
        """What it is made of, to be told from others by: counts, and a digest of each root."""
        return {
            "num_patches": len(self),
            "num_archives": self.num_archives,
            "digests": [index.content_digest() for index in self.indexes],
        }

    def patch(self, row: int) -> Patch:
        """One patch; see `patches`."""
        return self.patches([row])[0]

    def patches(self, rows: Sequence[int] | NDArray[np.integer]) -> list[Patch]:
        """Some patches; see `DatasetIndex.patches`.

        Raises:
            IndexError: If there is no such row.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        outside = (wanted < 0) | (wanted >= len(self))
        if outside.any():
            raise IndexError(f"row {wanted[outside][0]} of {len(self)} patches")
        found: dict[int, Patch] = {}
        roots = np.searchsorted(self._row_ends, wanted, side="right")
        for number in set(roots.tolist()):
            own = wanted[roots == number]
            patches = self.indexes[number].patches(own - self._first_row(number))
            found.update(zip(own.tolist(), patches, strict=True))
        return [found[row] for row in wanted.tolist()]

    def root_number(self, row: int) -> int:
        """Which index holds a row."""
        return int(np.searchsorted(self._row_ends, row, side="right"))

    def rows(self, samples: NDArray[np.integer], seed: int, block: int = 1) -> Rows:
        """Rows of samples that are counted from the start of the run.

        Args:
            samples: Integers from 0 on, in any order.
            seed: Seed of the run.
            block: See `adios_tme.data.order.shuffled_rows`.
        """
        samples = np.asarray(samples, dtype=np.int64)
        epochs = samples // self.epoch_length
        places = sample_rows(samples, self.epoch_length, seed, block)
        roots = np.searchsorted(self._sample_ends, places, side="right")
        rows = np.empty_like(places)
        for number in np.unique(roots):
            own = roots == number
            rows[own] = self._rows_of_root(int(number), epochs[own], places[own], seed, block)
        return rows

    def _rows_of_root(self, number: int, epochs: Rows, places: Rows, seed: int, block: int) -> Rows:
        num_patches = len(self.indexes[number])
        before = int(self._sample_ends[number - 1]) if number else 0
        per_epoch = int(self._sample_ends[number]) - before
        within = places - before
        if per_epoch != num_patches:  # else the epoch's shuffle has done it
            own_seed = seed + 1 + number
            within = sample_rows(epochs * per_epoch + within, num_patches, own_seed, block)
        return within + self._first_row(number)

    def _first_row(self, number: int) -> int:
        return int(self._row_ends[number - 1]) if number else 0

    def damage(self, row: int, reason: str) -> CorruptPatch:
        """What is told of a patch that cannot be read."""
        patch, index = self.patch(row), self.indexes[self.root_number(row)]
        several = len(self.indexes) > 1
        archive = str(patch.archive.path) if several else index.location(patch.archive)
        return CorruptPatch(archive, patch.member.name, reason)
