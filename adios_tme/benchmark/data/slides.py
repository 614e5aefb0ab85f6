"""How fast tiles are read from whole slides, beside OpenSlide alone on the same tiles."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from adios_tme.benchmark.data.bench import reads
from adios_tme.benchmark.interleave import cpu_ratio, each, interleave, rounded, speed_ratio, wall
from adios_tme.benchmark.open_slide_alone import OpenSlideAlone
from adios_tme.benchmark.speed_table import speed_table
from adios_tme.config.commands.loading import LoadingConfig
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.index import INDEX_NAME, DatasetIndex, Patch
from adios_tme.data.index_builder import index_archives
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.reader import PatchReader
from adios_tme.environment import describe_machine
from adios_tme.errors import DataError

VARIANTS = {
    "openslide": "OpenSlide alone: read_region and resize",
    "reader": "the reader in this process",
    "one_worker": "one worker",
    "all_workers": "all workers",
    "open_per_tile": "opening the slide for every tile",
}


@dataclass(frozen=True)
class SlideMeasurement:
    """What was measured; the names are keys of the JSON that users parse."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    num_slides: int
    num_tiles: int
    tiles_per_second: dict[str, float]
    one_worker_of_openslide: float
    """How many times as fast, as the others."""
    one_worker_of_openslide_by_cpu: float | None
    """The same by CPU time, which is steadier; None where the system does not tell it."""
    reader_of_openslide: float
    one_worker_over_open_per_tile: float
    all_workers_over_one: float

    def as_json(self) -> dict[str, Any]:
        """The values that are written."""
        return asdict(self)


def measure_slides(
    config: LoadingConfig, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> SlideMeasurement:
    """Measure the reading of slides.

    Args:
        config: What is measured, and how long; with a scale.
        on_progress: Told the parts that are done and their number.

    Raises:
        ConfigError: If the folder or a package is missing.
        DataError: If no tile can be read.
    """
    torch.set_num_threads(1)  # as in a worker
    with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder, ExitStack() as stack:
        output = Path(folder) / INDEX_NAME
        index = index_archives(
            config.data_path, config.patches, output, tiling=config.slides, slides_alone=True
        ).index
        on_progress(1, 2)
        tiles = _readable(index, config)
        reader = PatchReader(index)
        stack.callback(reader.close)
        variants = {
            "openslide": each(OpenSlideAlone().read, tiles),
            "reader": each(reader.read_patch, tiles),
            "one_worker": stack.enter_context(reads(index, config, 1, False)),
            "all_workers": stack.enter_context(reads(index, config, config.num_workers, False)),
            "open_per_tile": each(lambda patch: OpenSlideAlone().read(patch), tiles),
        }
        costs = interleave(config.num_rounds, variants)
        on_progress(2, 2)
        return SlideMeasurement(
            machine=describe_machine(torch.device("cpu")),
            settings=config.model_dump(mode="json", exclude={"output", "json_output", "members"}),
            num_slides=index.num_archives,
            num_tiles=len(index),
            tiles_per_second={name: rounded(1 / wall(costs[name])) for name in VARIANTS},
            one_worker_of_openslide=speed_ratio(costs, "one_worker", "openslide"),
            one_worker_of_openslide_by_cpu=cpu_ratio(costs, "one_worker", "openslide"),
            reader_of_openslide=speed_ratio(costs, "reader", "openslide"),
            one_worker_over_open_per_tile=speed_ratio(costs, "one_worker", "open_per_tile"),
            all_workers_over_one=speed_ratio(costs, "all_workers", "one_worker"),
        )


def _readable(index: DatasetIndex, config: LoadingConfig) -> list[Patch]:
    """The tiles that the loader reads first, in its order; without those that cannot be read."""
    mix, reader = PatchMixture([index]), PatchReader(index)
    tiles = []
    for patch in mix.patches(mix.rows(np.arange(min(config.num_samples, len(index))), seed=0)):
        try:
            reader.read_patch(patch)
        except CorruptPatchError:
            continue
        tiles.append(patch)
    reader.close()
    if not tiles:
        raise DataError(
            f"{config.data_path}: none of {config.num_samples} tiles can be read. "
            f"Run adios-tme index with --verify to see why."
        )
    return tiles


def slides_tables(results: SlideMeasurement) -> Iterator[Table]:
    """Speeds beside OpenSlide's own."""
    speeds = results.tiles_per_second
    yield speed_table(speeds, VARIANTS, "Tiles", "openslide", "Of OpenSlide alone")


def slides_summary(results: SlideMeasurement) -> str:
    """Ratios, and what they were measured on."""
    size, mpp = results.settings["patches"]["patch_size_px"], results.settings["slides"]["mpp"]
    by_cpu = results.one_worker_of_openslide_by_cpu
    by_cpu_too = "" if by_cpu is None else f" ({by_cpu:.2f} by CPU time)"
    return "\n".join(
        [
            f"One worker reaches {results.one_worker_of_openslide:.2f} of OpenSlide alone on the "
            f"same tiles{by_cpu_too}, and {results.one_worker_over_open_per_tile:.1f} times the "
            f"speed of opening the slide for every tile; all workers are "
            f"{results.all_workers_over_one:.1f} times as fast as one.",
            f"{results.num_tiles:,} tiles of {size} px at {mpp:g} microns per pixel in "
            f"{results.num_slides:,} slides, on {results.machine['processor']}.",
        ]
    )
