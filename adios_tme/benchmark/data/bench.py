"""What the parts of the loader's benchmark share: patches, and the variants to read them."""

from __future__ import annotations

import io
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from adios_tme.benchmark.data.results import Patches
from adios_tme.benchmark.interleave import Cost, Timed
from adios_tme.config.commands.loading import LoadingConfig
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.decode import Pixels, decode_image
from adios_tme.data.index import INDEX_NAME, DatasetIndex
from adios_tme.data.index_builder import index_archives
from adios_tme.data.loader import PatchLoader
from adios_tme.data.workers import BATCHES_AHEAD
from adios_tme.errors import DataError

#: How often it is looked whether workers have filled their slots.
POLL_SECONDS = 0.03
#: How many times as long as they should need for it they are given where that cannot be seen.
IDLE_MARGIN = 2
#: Where Linux tells how long a process has run, in nanoseconds, before other figures.
SCHEDSTAT = "/proc/{}/schedstat"


@dataclass
class Bench:
    """What all parts measure on: settings, a folder to write to, and a sample of the patches."""

    config: LoadingConfig
    folder: Path
    index: DatasetIndex
    dataset: PatchDataset
    rows: list[int]
    contents: list[bytes]

    @classmethod
    def build(cls, config: LoadingConfig, folder: Path) -> Self:
        """Index the data set into a folder, and read a sample of its patches.

        Raises:
            DataError: If none can be read.
        """
        report = index_archives(config.data_path, config.patches, folder / INDEX_NAME)
        dataset = PatchDataset(report.index, config.img_size)
        rows, contents = [], []
        spread = np.linspace(0, len(dataset) - 1, config.num_samples, dtype=int)
        for row in np.unique(spread).tolist():
            try:
                content = dataset.content(row)
                decode_image(content)
            except CorruptPatchError:
                continue
            rows.append(row)
            contents.append(content)
        if not rows:
            raise DataError(
                f"{config.data_path}: none of {config.num_samples} patches can be read. "
                f"Run adios-tme index with --verify to see why."
            )
        return cls(config, folder, report.index, dataset, rows, contents)

    def patches(self) -> Patches:
        """What the patches are, as the results tell."""
        height, width, _ = decode_image(self.contents[0]).shape
        return Patches(
            count=len(self.index),
            archives=self.index.num_archives,
            mean_bytes=round(statistics.fmean(map(len, self.contents))),
            first_size=(height, width),
            suffix=Path(self.index.patch(self.rows[0]).member.name).suffix,
        )

    def pillow(self, content: bytes) -> Pixels:
        """Decode and resize as most trainers do."""
        side = self.config.img_size
        with Image.open(io.BytesIO(content)) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            return np.asarray(resized)


@contextmanager
def reads(
    index: DatasetIndex, config: LoadingConfig, num_workers: int, resize_in_worker: bool
) -> Iterator[Timed]:
    """Reading through a loader, whose workers rest while other variants are timed."""
    before = set(multiprocessing.active_children())
    loader = PatchLoader(
        index,
        img_size=config.img_size,
        batch_size=config.batch_size,
        num_workers=num_workers,
        resize_in_worker=resize_in_worker,
    )
    loader.start()
    workers = [child.pid for child in set(multiprocessing.active_children()) - before]
    batches = iter(loader)
    # As many of each worker, so that what they do at the same time counts whole.
    num_batches = num_workers * max(1, round(config.num_samples / config.batch_size / num_workers))
    # What was read while others were timed, and one a worker until all of them are at work.
    before_timing = num_workers * (BATCHES_AHEAD + 1)

    def timed() -> Cost:
        cpu = cpu_seconds(workers)
        for _ in range(before_timing):
            next(batches)
        wall = time.perf_counter()
        for _ in range(num_batches):
            next(batches)
        wall = time.perf_counter() - wall
        # From rest to rest they have read as many as were taken.
        _wait_until_idle(workers, before_timing * wall / num_batches)
        after, num_read = cpu_seconds(workers), before_timing + num_batches
        spent = None if cpu is None or after is None else after - cpu
        return Cost(
            wall / (num_batches * config.batch_size),
            None if spent is None else spent / (num_read * config.batch_size),
        )

    try:
        start = time.perf_counter()
        next(batches)  # the slowest, as the workers only begin
        _wait_until_idle(workers, before_timing * (time.perf_counter() - start))
        yield timed
    finally:
        loader.close()


def _wait_until_idle(workers: list[int | None], seconds_to_fill: float) -> None:
    """Wait until all slots are filled: workers then use no CPU.

    Where the system does not tell that, wait twice as long as filling them should take.
    """
    if cpu_seconds(workers) is None:
        time.sleep(IDLE_MARGIN * seconds_to_fill)
        return
    spent: float | None = -1.0
    while (now := cpu_seconds(workers)) != spent:
        spent = now
        time.sleep(POLL_SECONDS)


def cpu_seconds(workers: list[int | None]) -> float | None:
    """CPU time that processes have used so far, in nanosecond steps; None if not told of each."""
    nanoseconds = 0
    for worker in workers:
        place = Path(SCHEDSTAT.format(worker))
        used = int(place.read_text().split()[0]) if place.exists() else 0
        if not used:  # a system that keeps no such statistics has zeros there, or no file
            return None
        nanoseconds += used
    return nanoseconds / 1e9


def pillow_decode(content: bytes) -> Pixels:
    """Decode as most trainers do."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
