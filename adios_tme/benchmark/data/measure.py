"""How fast patches are read, decoded and copied to the batch, beside what they could be.

Timing is interleaved in one run, and what is compared are medians over the rounds: on a machine
that does other work as well, ratios hold where seconds do not.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import kornia_rs
import numpy as np
import PIL
import torch

from adios_tme.benchmark.data.archives import measure_archives, measure_indexing
from adios_tme.benchmark.data.bench import Bench, pillow_decode, reads
from adios_tme.benchmark.data.decoders import measure_decoders
from adios_tme.benchmark.data.results import LoaderRatios, LoaderResult, Measurement, OrderResult
from adios_tme.benchmark.interleave import (
    Timed,
    cpu_milliseconds,
    cpu_ratio,
    each,
    interleave,
    milliseconds,
    rounded,
    speed_ratio,
    wall,
)
from adios_tme.config.commands.loading import LoadingConfig
from adios_tme.data.decode import decode_image
from adios_tme.data.order import shuffled_rows
from adios_tme.data.reader import OpenArchives
from adios_tme.data.resize import resize_image
from adios_tme.environment import describe_machine

Part = TypeVar("Part")
NUM_PARTS = 5
#: Positions of the order that are worked out, and patches of its epoch.
NUM_POSITIONS, LARGE_EPOCH = 1 << 20, 10**9


def measure_loading(
    config: LoadingConfig, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Measurement:
    """Measure a data set's loader.

    Args:
        config: What is measured, and how long.
        on_progress: Told the parts that are done and their number.

    Raises:
        ConfigError: If the folder is missing.
        DataError: If it holds no patch that can be read.
    """
    torch.set_num_threads(1)  # as in a worker
    done = itertools.count(1)
    with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder:
        bench = Bench.build(config, Path(folder))

        def measured(part: Callable[[Bench], Part]) -> Part:
            result = part(bench)
            on_progress(next(done), NUM_PARTS)
            return result

        return Measurement(
            machine=describe_machine(torch.device("cpu")) | _versions(),
            settings=config.model_dump(mode="json", exclude={"output", "json_output"}),
            patches=bench.patches(),
            loader=measured(_measure_loader),
            archives=measured(measure_archives),
            decoders=measured(measure_decoders),
            indexing=measured(measure_indexing),
            order=measured(_measure_order),
        )


def _versions() -> dict[str, str]:
    return {
        "cores": str(os.cpu_count()),
        "kornia_rs": kornia_rs.__version__,
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }


def _measure_loader(bench: Bench) -> LoaderResult:
    """Stages one by one, and the loader beside its decoder."""
    config = bench.config
    images = [decode_image(content) for content in bench.contents]
    slots = np.empty((config.batch_size, *images[0].shape), dtype=np.uint8)

    mix, archives = bench.dataset.mix, OpenArchives()
    starts = range(0, len(bench.rows), config.batch_size)
    batches = [bench.rows[start : start + config.batch_size] for start in starts]

    def hand_over(number: int) -> None:
        image = images[number]
        if image.shape == slots.shape[1:]:
            slots[number % config.batch_size] = image

    with ExitStack() as stack:

        def loader(num_workers: int, resize_in_worker: bool) -> Timed:
            timed = reads(bench.index, config, num_workers, resize_in_worker)
            return stack.enter_context(timed)

        costs = interleave(
            bench.config.num_rounds,
            {
                "decode": each(decode_image, bench.contents),
                "one_worker": loader(1, False),
                "one_worker_resizing": loader(1, True),
                "all_workers": loader(config.num_workers, False),
                "look_up": each(mix.patches, batches, num_patches=len(bench.rows)),
                "read": each(archives.read, mix.patches(bench.rows)),
                "resize": each(lambda image: resize_image(image, config.img_size), images),
                "hand_over": each(hand_over, list(range(len(images)))),
                "pillow_decode": each(pillow_decode, bench.contents),
                "pillow_way": each(bench.pillow, bench.contents),
            },
        )
    archives.close()
    speeds = ("decode", "one_worker", "one_worker_resizing", "all_workers", "pillow_way")
    stages = ("look_up", "read", "decode", "resize", "hand_over", "pillow_decode", "pillow_way")
    return LoaderResult(
        images_per_second={name: rounded(1 / wall(costs[name])) for name in speeds},
        split_ms={name: milliseconds(costs[name]) for name in stages},
        split_cpu_ms={name: cpu_milliseconds(costs[name]) for name in stages},
        ratios=LoaderRatios(
            one_worker_of_decode_ceiling=speed_ratio(costs, "one_worker", "decode"),
            one_worker_of_decode_ceiling_by_cpu=cpu_ratio(costs, "one_worker", "decode"),
            one_worker_resizing_of_decode_ceiling=speed_ratio(
                costs, "one_worker_resizing", "decode"
            ),
            one_worker_over_pillow_way=speed_ratio(costs, "one_worker", "pillow_way"),
            all_workers_over_one=speed_ratio(costs, "all_workers", "one_worker"),
        ),
    )


def _measure_order(bench: Bench) -> OrderResult:
    """The cost of a position of the shuffled order."""
    positions = np.arange(NUM_POSITIONS)
    timed = each(lambda _: shuffled_rows(positions, LARGE_EPOCH, 0, 0), [0], NUM_POSITIONS)
    costs = interleave(bench.config.num_rounds, {"order": timed})
    return OrderResult(LARGE_EPOCH, rounded(wall(costs["order"]) * 1e6))
