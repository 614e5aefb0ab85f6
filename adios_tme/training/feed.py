"""From the index to normalised batches on the device, with damage counted on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from adios_tme.config.train import TrainConfig
from adios_tme.data.augment import augment
from adios_tme.data.corrupt import CorruptLog, CorruptPatchError
from adios_tme.data.dataset import PatchDataset
from adios_tme.data.loader import PatchLoader
from adios_tme.data.members import printable
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.prefetch import Prefetcher, resizes_in_worker
from adios_tme.distributed.world import World
from adios_tme.models.layers import Normalise
from adios_tme.run_folder.layout import CORRUPT

logger = logging.getLogger(__name__)


class Feed:
    """Batches of one rank from a given sample on, for ever.

    Args:
        config: Settings of the run.
        world: Place of this process.
        index: The patches of all roots.
        batch_size: Images of this rank per batch.
        first_sample: Samples of the whole run that are already seen.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        index: PatchMixture,
        batch_size: int,
        first_sample: int,
    ) -> None:
        self.index = index
        self.normalise = Normalise(config.data.mean, config.data.std).to(world.device)
        self.damage = CorruptLog(config.run.output_dir / CORRUPT)
        self.wait_seconds = 0.0
        self.rows: list[int] = []
        """Rows of the index that the newest batch shows."""
        self._config = config
        self._device = world.device
        self._num_seen = 0
        self._loader = PatchLoader(
            index,
            img_size=config.data.img_size,
            batch_size=batch_size,
            rank=world.rank,
            num_ranks=world.num_ranks,
            seed=config.run.seed,
            first_sample=first_sample,
            num_workers=config.data.num_workers,
            shuffle_block=config.data.shuffle_block,
            resize_in_worker=resizes_in_worker(config.data.resize_on, world.device),
            pin_memory=world.device.type == "cuda",
        )

    def __enter__(self) -> Self:
        self._loader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loader.close()

    def __iter__(self) -> Iterator[Tensor]:
        """Normalised images (B, 3, H, W) on the device."""
        batches = iter(self._loader)
        handover = Prefetcher(self._device, self._config.data.img_size)
        while True:
            start = time.perf_counter()
            batch, images = handover.take(batches)
            self.wait_seconds += time.perf_counter() - start
            self._num_seen += len(batch.rows)
            self.rows = batch.rows.tolist()
            for damage in self.damage.record(batch.damaged):
                place = printable(damage.archive), printable(damage.name)
                logger.warning("%s: %s left out (%s)", *place, damage.reason)
            yield self.normalise(augment(images, self._config.data.augment))

    def check_damage(self) -> None:
        """Raise when more of the patches seen were unreadable than the settings allow.

        Raises:
            DataError: Naming the share and the log.
        """
        self.damage.check(self._num_seen, self._config.data.max_corrupt_fraction)

    def examples(self, count: int) -> Tensor:
        """The same few images every time, uint8 (B, 3, H, W), spread over the archives."""
        dataset = PatchDataset(self.index, self._config.data.img_size)
        images = []
        for row in np.linspace(0, len(self.index) - 1, min(count, len(self.index)), dtype=int):
            try:
                images.append(dataset[int(row)])
            except CorruptPatchError:
                continue  # the loader logs it when its turn comes
        return torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
