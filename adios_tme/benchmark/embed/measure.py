"""How fast ``adios-tme embed`` is, beside a plain timm loop, the encoder and the loader alone.

Timing is interleaved in one run, and what is compared are medians over the rounds: on a machine
that does other work as well, ratios hold where seconds do not.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.benchmark.embed.results import EmbedRatios, EmbedResult
from adios_tme.benchmark.embed.timm_loop import TimmLoop
from adios_tme.benchmark.interleave import (
    cpu_ratio,
    interleave,
    rounded,
    speed_ratio,
    wall,
    whole,
)
from adios_tme.config.base import cores_at_hand
from adios_tme.config.commands.embed import EmbedSpeedConfig
from adios_tme.config.slides import tiling_of
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.index import INDEX_NAME, DatasetIndex
from adios_tme.data.index_builder import index_archives
from adios_tme.data.prefetch import Prefetcher, resizes_in_worker
from adios_tme.data.reader import PatchReader
from adios_tme.data.row_loader import RowLoader
from adios_tme.data.slots import Reading
from adios_tme.distributed.world import choose_device
from adios_tme.environment import describe_machine
from adios_tme.errors import DataError
from adios_tme.inference.embed.encoder import FeatureEncoder, load_feature_encoder
from adios_tme.inference.embed.work import EmbeddedBatches

OnProgress = Callable[[int, int], None]


def measure_embedding(
    config: EmbedSpeedConfig, on_progress: OnProgress = lambda done, total: None
) -> EmbedResult:
    """Measure a data set and an encoder.

    Args:
        config: What is measured, and how long.
        on_progress: Told the timings that are done and their number.

    Raises:
        ConfigError: If the folder is missing, or the pooling does not fit the encoder.
        CheckpointError: If the encoder cannot be loaded.
        DataError: If no patch can be read.
    """
    device = choose_device(config.features.device)
    encoder = load_feature_encoder(config.run, config.features, device)
    with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder:
        path = Path(folder, INDEX_NAME)
        tiling = tiling_of(config.slides)
        index = index_archives(config.data_path, config.patches, path, tiling=tiling).index
        bench = _Bench(config, index, _readable_rows(index, config.num_samples), encoder, device)
        loop = bench.timm_loop()
        ways: dict[str, Callable[[], object]] = {
            "embed": bench.embed,
            "timm_loop": loop.run,
            "model": bench.model_alone(),
            "loader": bench.loader_alone,
        }
        expected, found = loop.run(), bench.embed()
        num_timings = len(ways) * (config.num_rounds + 1)
        done = itertools.count(1)
        timed = {
            name: whole(way, len(bench.rows), lambda: on_progress(next(done), num_timings))
            for name, way in ways.items()
        }
        costs = interleave(config.num_rounds, timed)
    loader_over_model = speed_ratio(costs, "loader", "model")
    in_turn = wall(costs["model"]) + wall(costs["loader"])
    return EmbedResult(
        machine=describe_machine(device) | {"cores": cores_at_hand()},
        settings=config.model_dump(mode="json", exclude={"output", "json_output"}),
        num_patches=len(bench.rows),
        images_per_second={name: rounded(1 / wall(cost)) for name, cost in costs.items()},
        ratios=EmbedRatios(
            embed_over_timm_loop=speed_ratio(costs, "embed", "timm_loop"),
            embed_of_model=speed_ratio(costs, "embed", "model"),
            embed_of_model_by_cpu=(
                cpu_ratio(costs, "embed", "model") if device.type == "cpu" else None
            ),
            embed_of_loader=speed_ratio(costs, "embed", "loader"),
            embed_of_both_in_turn=rounded(in_turn / wall(costs["embed"])),
            loader_over_model=loader_over_model,
        ),
        limit="model" if loader_over_model >= 1 else "loader",
        largest_difference=rounded(float((expected - found).abs().max())),
        largest_feature=rounded(float(expected.abs().max())),
    )


def _readable_rows(index: DatasetIndex, num_samples: int) -> NDArray[np.int64]:
    """Patches spread over all, of those that can be read.

    Raises:
        DataError: If none of them can.
    """
    spread = np.unique(np.linspace(0, len(index) - 1, num_samples, dtype=np.int64))
    reader, rows = PatchReader(index), []
    with closing(reader):
        for row in spread.tolist():
            try:
                reader.read(row)
            except CorruptPatchError:
                continue
            rows.append(row)
    if not rows:
        raise DataError(
            f"{index.root}: none of {len(spread)} patches can be read. "
            f"Run adios-tme index with --verify to see why."
        )
    return np.array(rows, dtype=np.int64)


@dataclass
class _Bench:
    """What all ways work on."""

    config: EmbedSpeedConfig
    index: DatasetIndex
    rows: NDArray[np.int64]
    encoder: FeatureEncoder
    device: torch.device

    @property
    def reading(self) -> Reading:
        return Reading(
            self.encoder.img_size,
            self.config.batch_size,
            self.config.num_workers,
            resize_in_worker=resizes_in_worker("auto", self.device),
            pin_memory=self.device.type == "cuda",
        )

    def embed(self) -> Tensor:
        """As the command does, from the start of the workers to the last feature."""
        batches = EmbeddedBatches(self.index, self.rows, self.encoder, self.reading, self.device)
        with closing(batches):
            batches.start()
            return torch.cat([torch.from_numpy(batch.values().copy()) for batch in batches])

    def loader_alone(self) -> None:
        """The same without the encoder."""
        loader = RowLoader(self.index, self.rows, self.reading)
        with closing(loader):
            loader.start()
            prefetcher, batches = Prefetcher(self.device, self.encoder.img_size), iter(loader)
            for _ in range(loader.num_batches):
                prefetcher.take(batches)
            self.wait()

    def model_alone(self) -> Callable[[], None]:
        """The encoder on random images that are on the device already."""
        side, size = self.encoder.img_size, self.config.batch_size
        images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8).to(self.device)
        sizes = [size] * (len(self.rows) // size) + [len(self.rows) % size]

        def run() -> None:
            for count in filter(None, sizes):
                self.encoder(images[:count])
            self.wait()

        return run

    def timm_loop(self) -> TimmLoop:
        return TimmLoop(
            self.index,
            self.rows.tolist(),
            self.encoder,
            self.device,
            self.config.batch_size,
            self.config.num_workers,
        )

    def wait(self) -> None:
        """Until the device has done all that it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
