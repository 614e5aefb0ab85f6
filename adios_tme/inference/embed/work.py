"""One rank's part: batches of patches to features, features to files of slides.

Shape legend: B patches of a batch, D width of a feature.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.data.by_slide import coordinates_of
from adios_tme.data.corrupt import CorruptLog
from adios_tme.data.index import DatasetIndex
from adios_tme.data.members import printable
from adios_tme.data.prefetch import Prefetcher, resizes_in_worker
from adios_tme.data.row_loader import RowLoader
from adios_tme.data.slots import Reading
from adios_tme.files import writing
from adios_tme.inference.embed.encoder import FeatureEncoder
from adios_tme.inference.embed.features_file import SlideFeatures, write_features
from adios_tme.inference.embed.folder import Layout
from adios_tme.inference.embed.plan import PlannedSlide
from adios_tme.run_folder.layout import CORRUPT

logger = logging.getLogger(__name__)

Rows = NDArray[np.int64]


def reading_of(config: EmbedConfig, img_size: int, device: torch.device) -> Reading:
    """How patches are read: as in training."""
    return Reading(
        img_size,
        config.batch_size,
        config.num_workers,
        resize_in_worker=resizes_in_worker("auto", device),
        pin_memory=device.type == "cuda",
        read_timeout_seconds=config.read_timeout_seconds,
    )


class Embedded(NamedTuple):
    """Features of a batch that may still be on their way from the device."""

    planned: Rows
    """The patches that were asked for."""
    shown: Rows
    """Those that could be read."""
    features: Tensor
    """float32 (B, D) on the host."""
    arrived: torch.cuda.Event | None

    def values(self) -> NDArray[np.float32]:
        """The features, once they are there (a host sync)."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.features.numpy()


class EmbeddedBatches:
    """Features of given patches, batch by batch; a batch is computed while the last one is used.

    Args:
        index: The patches.
        rows: Those to embed.
        encoder: On its device.
        reading: How patches are read.
        device: Where the encoder is.
        corrupt: Where patches go that cannot be read.
    """

    def __init__(
        self,
        index: DatasetIndex,
        rows: Rows,
        encoder: FeatureEncoder,
        reading: Reading,
        device: torch.device,
        corrupt: CorruptLog | None = None,
    ) -> None:
        self._rows = rows
        self._encoder = encoder
        self._device = device
        self._corrupt = corrupt
        self._batch_size = reading.batch_size
        self._loader = RowLoader(index, rows, reading)
        self.num_batches = self._loader.num_batches
        self.num_seen = 0
        """Patches that were read so far, or could not be."""

    def start(self) -> None:
        """Start the workers."""
        self._loader.start()

    def close(self) -> None:
        """Stop the workers."""
        self._loader.close()

    def __iter__(self) -> Iterator[Embedded]:
        """Features in the order of the rows."""
        prefetcher = Prefetcher(self._device, self._encoder.img_size)
        batches = iter(self._loader)
        last: Embedded | None = None
        for number in range(self.num_batches):
            batch, images = prefetcher.take(batches)
            if self._corrupt:
                for patch in self._corrupt.record(batch.damaged):
                    place = printable(patch.archive), printable(patch.name)
                    logger.warning("%s: %s left out (%s)", *place, patch.reason)
            first = number * self._batch_size
            planned = self._rows[first : first + self._batch_size]
            self.num_seen += len(planned)
            embedded = self._embed(planned, batch.rows.numpy(), images)
            if last is not None:
                yield last
            last = embedded
        if last is not None:
            yield last

    def _embed(self, planned: Rows, shown: Rows, images_BCSS: Tensor) -> Embedded:
        if not len(shown):
            return Embedded(planned, shown, torch.empty(0, self._encoder.dim), None)
        features = self._encoder(images_BCSS).to("cpu", non_blocking=True)
        arrived = None
        if self._device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record()
        return Embedded(planned, shown, features, arrived)


class Assembly:
    """Puts the features of batches together to slides.

    Args:
        lengths: Patches of each slide, in the order in which their rows are embedded.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._ends = np.cumsum(lengths)
        self._position = 0
        self._slide = 0
        self._rows: list[Rows] = []
        self._features: list[NDArray[np.float32]] = []

    def add(self, embedded: Embedded) -> Iterator[tuple[int, Rows, NDArray[np.float32]]]:
        """Add a batch; each slide that is then complete by its number, rows read, and features."""
        kept = np.isin(embedded.planned, embedded.shown)
        before = np.concatenate([[0], np.cumsum(kept)])
        values, begin = embedded.values(), 0
        while begin < len(kept):
            end = min(len(kept), begin + int(self._ends[self._slide]) - self._position)
            own = slice(before[begin], before[end])
            self._rows.append(embedded.shown[own])
            self._features.append(values[own])
            self._position += end - begin
            begin = end
            if self._position == self._ends[self._slide]:
                yield self._slide, np.concatenate(self._rows), np.concatenate(self._features)
                self._rows, self._features = [], []
                self._slide += 1


class Work:
    """The slides of one rank, a batch at a time.

    Args:
        config: Settings.
        index: The patches.
        encoder: On its device.
        layout: Where files go.
        slides: Those of this rank.
        device: Where the encoder is.
    """

    def __init__(
        self,
        config: EmbedConfig,
        index: DatasetIndex,
        encoder: FeatureEncoder,
        layout: Layout,
        slides: Sequence[PlannedSlide],
        device: torch.device,
    ) -> None:
        self.slides = slides
        self.counts: Counter[str] = Counter()
        self._config = config
        self._index = index
        self._layout = layout
        self._corrupt = CorruptLog(config.output / CORRUPT)
        self._assembly = Assembly([len(slide.patches) for slide in slides])
        rows = [slide.patches.rows for slide in slides]
        reading = reading_of(config, encoder.img_size, device)
        self._batches = EmbeddedBatches(
            index,
            np.concatenate(rows) if rows else np.empty(0, dtype=np.int64),
            encoder,
            reading,
            device,
            self._corrupt,
        )
        self._results = iter(self._batches)

    @property
    def num_steps(self) -> int:
        """Batches of this rank."""
        return self._batches.num_batches

    def start(self) -> None:
        """Start the workers."""
        if self.slides:
            self._batches.start()

    def close(self) -> None:
        """Stop the workers."""
        self._batches.close()

    def step(self) -> None:
        """Embed a batch, and write the slides that are complete with it; nothing where all are.

        Raises:
            DataError: If a file cannot be written, or too many patches cannot be read.
        """
        embedded = next(self._results, None)
        if embedded is None:
            return
        self._corrupt.check(self._batches.num_seen, self._config.max_corrupt_fraction)
        for number, rows, features in self._assembly.add(embedded):
            self._write(self.slides[number], rows, features)

    def _write(self, slide: PlannedSlide, rows: Rows, features: NDArray[np.float32]) -> None:
        num_left_out = len(slide.patches) - len(rows)
        self.counts["left_out"] += num_left_out
        self.counts["slides_with_left_out"] += num_left_out > 0
        if not len(rows):
            self.counts["empty"] += 1
            logger.warning(
                "%s: none of its %d patches could be read, so that it has no file.",
                *(printable(slide.patches.name), len(slide.patches)),
            )
            return
        attributes = self._layout.attributes(slide.path, slide.file_name, slide.facts)
        attributes |= {"patches_digest": slide.digest, "num_left_out": num_left_out}
        without = self._config.no_coords
        content = SlideFeatures(
            features.astype(self._config.dtype, copy=False),
            None if without else coordinates_of(self._index, rows),
            tuple(self._index.names(rows)) if without else None,
            attributes,
        )
        with writing(slide.path):
            write_features(slide.path, content)
        self.counts["slides"] += 1
