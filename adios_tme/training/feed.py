"""From the index to normalised batches on the device, with corrupt patches counted on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from adios_tme.config.data import DataConfig
from adios_tme.config.run import RunConfig
from adios_tme.data.augment import augment
from adios_tme.data.corrupt import CorruptLog, CorruptPatchError
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.loader import PatchLoader
from adios_tme.data.members import printable
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.prefetch import Prefetcher, resizes_in_worker
from adios_tme.distributed.collectives import failing_together
from adios_tme.distributed.world import World
from adios_tme.errors import DataError
from adios_tme.masking.views import random_crops
from adios_tme.models.layers import Normalise
from adios_tme.run_folder.layout import CORRUPT

logger = logging.getLogger(__name__)


class Pass(NamedTuple):
    """The images of one pass of a rank."""

    images: Tensor
    """Normalised (B, 3, H, W), on the device."""
    rows: list[int]
    """Of the index, that they show."""
    wait_seconds: float
    """For which the step had to wait for them."""
    clean: Tensor
    """What their masked views are compared with: the images, or another augmentation of them."""


class Feed:
    """Batches of one rank from a given sample on, for ever.

    Args:
        data: Settings of the patches.
        run: Seed and output folder.
        world: Place of this process.
        index: The patches of all roots.
        batch_size: Images of this rank per batch.
        first_sample: Samples of the whole run that are already seen.
    """

    def __init__(
        self,
        data: DataConfig,
        run: RunConfig,
        world: World,
        index: PatchMixture,
        batch_size: int,
        first_sample: int,
    ) -> None:
        self.index = index
        self.corrupt = CorruptLog(run.output_dir / CORRUPT)
        self._normalise = Normalise(data.mean, data.std).to(world.device)
        self._data = data
        self._device = world.device
        self._num_seen = 0
        self._loader = PatchLoader(
            index,
            img_size=data.img_size,
            batch_size=batch_size,
            rank=world.rank,
            num_ranks=world.num_ranks,
            seed=run.seed,
            first_sample=first_sample,
            num_workers=data.num_workers,
            shuffle_block=data.shuffle_block,
            resize_in_worker=resizes_in_worker(data.resize_on, world.device),
            pin_memory=world.device.type == "cuda",
            read_timeout_seconds=data.read_timeout_seconds,
            open_slides=data.open_slides,
        )

    def __enter__(self) -> Self:
        with failing_together():
            self._loader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loader.close()

    def __iter__(self) -> Iterator[Pass]:
        """Images of one pass after the other."""
        batches = iter(self._loader)
        prefetcher = Prefetcher(self._device, self._data.img_size)
        while True:
            start = time.perf_counter()
            batch, images = prefetcher.take(batches)
            waited = time.perf_counter() - start
            self._num_seen += len(batch.rows) + len(batch.damaged)
            for patch in self.corrupt.record(batch.damaged):
                place = printable(patch.archive), printable(patch.name)
                logger.warning("%s: %s left out (%s)", *place, patch.reason)
            view = self._view(images)
            clean = self._view(images) if self._data.views == "two" else view
            yield Pass(view, batch.rows.tolist(), waited, clean)

    def _view(self, images: Tensor) -> Tensor:
        """Augmented in its own way, and normalised."""
        view = self._normalise(augment(images, self._data))
        least = self._data.augment_crop
        return view if least == 1 else random_crops(view, view.shape[-1], crop_area=(least, 1.0))

    def check_corrupt(self) -> None:
        """Raise when more of the patches seen were unreadable than the settings allow.

        Raises:
            DataError: Naming the share and the log.
        """
        self.corrupt.check(self._num_seen, self._data.max_corrupt_fraction)

    def examples(self, count: int) -> Tensor:
        """The same few images every time, uint8 (B, 3, H, W), spread over the archives."""
        dataset = PatchDataset(self.index, self._data.img_size)
        images = []
        for row in np.linspace(0, len(self.index) - 1, min(count, len(self.index)), dtype=int):
            try:
                images.append(dataset[int(row)])
            except (CorruptPatchError, DataError):
                continue  # the loader tells it when its turn comes
        return torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
