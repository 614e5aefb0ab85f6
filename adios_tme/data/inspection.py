"""What a data set holds: every patch read, or statistics over a sample of them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.corrupt import CorruptPatch, CorruptPatchError
from adios_tme.data.decode import Pixels
from adios_tme.data.index import DatasetIndex
from adios_tme.data.names import parse_name
from adios_tme.data.order import shuffled_rows
from adios_tme.data.reader import PatchReader
from adios_tme.distributed.pool import in_order, process_pool
from adios_tme.errors import DataError

Progress = Callable[[int, int], None]
T = TypeVar("T")

#: Patches that a process reads before it reports.
CHUNK = 64


@dataclass(frozen=True)
class Verification:
    """What reading every patch has found."""

    num_patches: int
    num_bytes: int
    damaged: tuple[CorruptPatch, ...]

    def reasons(self) -> Counter[str]:
        """How often each kind of damage was met, details in brackets left out."""
        return Counter(damage.reason.partition(" (")[0] for damage in self.damaged)


class _Read(NamedTuple):
    """What reading some rows has found."""

    num_bytes: int
    damaged: list[CorruptPatch]


def verify_index(
    index: DatasetIndex, num_workers: int, on_progress: Progress | None = None
) -> Verification:
    """Read and decode every patch, in the order in which they lie.

    Args:
        index: The patches.
        num_workers: Processes.
        on_progress: Called with the patches done and their number.

    Raises:
        LaunchError: If one of the processes is killed.
    """
    rows = range(len(index))
    num_bytes = 0
    damaged: list[CorruptPatch] = []
    for read in _in_processes(_verify, index, rows, num_workers, on_progress):
        num_bytes += read.num_bytes
        damaged.extend(read.damaged)
    return Verification(len(index), num_bytes, tuple(damaged))


def _verify(path: Path, rows: Sequence[int]) -> _Read:
    dataset = _dataset(path)
    num_bytes = 0
    damaged: list[CorruptPatch] = []
    for row, patch in zip(rows, dataset.mix.patches(rows), strict=True):
        try:
            dataset.read_patch(patch)
        except CorruptPatchError as error:
            damaged.append(dataset.mix.damage(row, str(error)))
        num_bytes += patch.member.size
    return _Read(num_bytes, damaged)


@dataclass
class Statistics:
    """Sums over some patches, from which means follow."""

    num_read: int = 0
    num_damaged: int = 0
    num_pixels: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    sizes: Counter[str] = field(default_factory=Counter)
    scales: Counter[str] = field(default_factory=Counter)
    num_placed: int = 0

    def add(self, other: Statistics) -> None:
        """Take in the sums over other patches."""
        self.num_read += other.num_read
        self.num_damaged += other.num_damaged
        self.num_pixels += other.num_pixels
        self.sums += other.sums
        self.squares += other.squares
        self.sizes += other.sizes
        self.scales += other.scales
        self.num_placed += other.num_placed

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel, 0 to 1."""
        return tuple((self.sums / self.num_pixels / 255).tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Of each channel over all pixels, 0 to 1."""
        mean = self.sums / self.num_pixels
        return tuple((np.sqrt(self.squares / self.num_pixels - mean**2) / 255).tolist())


def measure_index(
    index: DatasetIndex,
    num_samples: int,
    num_workers: int,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Statistics of a data set, over a random sample of its patches.

    Args:
        index: The patches.
        num_samples: Patches that are read at most.
        num_workers: Processes.
        on_progress: Called with the patches done and their number.

    Returns:
        Plain values: mean and std of the channels (0 to 1), sizes in pixels, patches per slide, and
        magnification, microns per pixel and places where names state them.

    Raises:
        DataError: If none of the sample can be read.
        LaunchError: If one of the processes is killed.
    """
    total = Statistics()
    for part in _in_processes(
        _measure, index, sample(index, num_samples).tolist(), num_workers, on_progress
    ):
        total.add(part)
    if not total.num_read:
        raise DataError(
            f"{index.root}: none of {total.num_damaged} patches can be read. "
            f"Run adios-tme index with --verify to see why."
        )
    slides = sorted(index.patches_per_slide().values())
    return {
        "num_patches": len(index),
        "num_archives": index.num_archives,
        "num_sampled": total.num_read,
        "num_damaged": total.num_damaged,
        "mean": [round(value, 4) for value in total.mean],
        "std": [round(value, 4) for value in total.std],
        "sizes": dict(total.sizes.most_common()),
        "scales": dict(total.scales.most_common()),
        "num_placed": total.num_placed,
        "num_slides": len(slides),
        "patches_per_slide": {
            "least": slides[0],
            "median": statistics.median(slides),
            "most": slides[-1],
        },
    }


def sample(index: DatasetIndex, num_samples: int) -> NDArray[np.int64]:
    """Rows of a random sample, always the same, without repeats, in the order in which they lie."""
    positions = np.arange(min(num_samples, len(index)))
    return np.sort(shuffled_rows(positions, len(index), seed=0, epoch=0))


def read_sample(index: DatasetIndex, num_samples: int) -> list[Pixels]:
    """Some random patches, (H, W, 3) each; those that cannot be read are left out."""
    dataset = PatchReader(index)
    images = []
    for row in sample(index, num_samples).tolist():
        try:
            images.append(dataset.read(row))
        except CorruptPatchError:
            continue  # counted by the statistics
    dataset.close()
    return images


def _measure(path: Path, rows: Sequence[int]) -> Statistics:
    dataset, found = _dataset(path), Statistics()
    (index,) = dataset.mix.indexes
    for patch in index.patches(rows):
        container, pattern = index.location(patch.archive), index.selection.name_pattern
        found.scales.update(scale_in_name(patch.member.name, pattern, container))
        found.num_placed += patch.coordinates is not None
        try:
            pixels = dataset.read_patch(patch)
        except CorruptPatchError:
            found.num_damaged += 1
            continue
        height, width, _ = pixels.shape
        flat = pixels.reshape(-1, 3).astype(np.float64)
        found.num_read += 1
        found.num_pixels += len(flat)
        found.sums += flat.sum(axis=0)
        found.squares += (flat**2).sum(axis=0)
        found.sizes[f"{width} x {height}"] += 1
    return found


def scale_in_name(name: str, pattern: str | None = None, container: str = "") -> list[str]:
    """Magnification (``20x``) or microns per pixel (``0.5 mpp``) that a name states, if any.

    Args:
        name: See `adios_tme.data.names.parse_name`, as for the others.
        pattern: How names are meant.
        container: Where the patch lies.
    """
    facts = parse_name(name, pattern, container)
    if facts.mpp is not None:
        return [f"{facts.mpp:g} mpp"]
    return [] if facts.magnification is None else [f"{facts.magnification:g}x"]


def _in_processes(
    function: Callable[[Path, Sequence[int]], T],
    index: DatasetIndex,
    rows: Sequence[int],
    num_workers: int,
    on_progress: Progress | None,
) -> Iterator[T]:
    """Results of a function over chunks of rows, in their order."""
    chunks = ((index.path, rows[at : at + CHUNK]) for at in range(0, len(rows), CHUNK))
    with process_pool(num_workers, f"{index.root}: reading patches") as pool:
        results = in_order(pool, function, chunks, num_workers)
        for number, result in enumerate(results, start=1):
            if on_progress:
                on_progress(min(number * CHUNK, len(rows)), len(rows))
            yield result


@cache
def _dataset(path: Path) -> PatchReader:
    """The patches, opened once a process."""
    return PatchReader(DatasetIndex.open(path))
