"""How fast ``adios-tme segment`` is, beside its mask model alone.

Timing is interleaved in one run, and what is compared are medians over the rounds: on a machine
that does other work as well, ratios hold where seconds do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from adios_tme.benchmark.interleave import (
    cpu_ratio,
    interleave,
    rounded,
    speed_ratio,
    wall,
    whole,
)
from adios_tme.benchmark.segment.bench import Bench
from adios_tme.benchmark.segment.memory import peak_memory
from adios_tme.benchmark.segment.results import SegmentRatios, SegmentResult
from adios_tme.benchmark.segment.stages import stage_seconds
from adios_tme.config.base import cores_at_hand
from adios_tme.config.commands.segment import SegmentSpeedConfig
from adios_tme.distributed.world import choose_device
from adios_tme.environment import describe_machine

OnProgress = Callable[[int, int], None]


def measure_segmenting(
    config: SegmentSpeedConfig, on_progress: OnProgress = lambda done, total: None
) -> SegmentResult:
    """Measure a slide and a mask model.

    Args:
        config: What is measured, and how long.
        on_progress: Told the timings that are done and their number.

    Raises:
        ConfigError: If settings do not fit the model or the slide.
        CheckpointError: If there is no mask model.
        DataError: If the slide cannot be read, or has no tissue.
        LaunchError: If the process whose memory is measured is killed.
    """
    device = choose_device(config.device)
    bench = Bench.open(config, device)
    done, num_timings = itertools.count(1), 2 * (config.num_rounds + 1) + 2

    def tell() -> None:
        on_progress(next(done), num_timings)

    batches = bench.batches()
    num_windows = sum(size * count for size, count in batches.items())
    ways = {"segment": bench.segment, "model": bench.model_alone(batches)}
    timed = {name: whole(way, num_windows, tell) for name, way in ways.items()}
    costs = interleave(config.num_rounds, timed)
    stages, num_nuclei = stage_seconds(bench)
    tell()
    peak = peak_memory(config, bench.chosen)
    tell()
    microns = bench.view.microns_per_pixel
    assert microns is not None  # of every slide
    seconds = wall(costs["segment"]) * num_windows
    return SegmentResult(
        machine=describe_machine(device) | {"cores": cores_at_hand()},
        settings=config.model_dump(mode="json", exclude={"output", "json_output"}),
        channel=bench.chosen.channel + 1,
        threshold=bench.chosen.threshold,
        microns_per_pixel=rounded(microns),
        img_size=bench.generator.img_size,
        num_blocks=len(bench.cores),
        num_blocks_of_slide=bench.num_cores_of_slide,
        num_windows=num_windows,
        num_nuclei=num_nuclei,
        windows_per_second={name: rounded(1 / wall(cost)) for name, cost in costs.items()},
        nuclei_per_second=rounded(num_nuclei / seconds),
        ratios=SegmentRatios(
            segment_of_model=speed_ratio(costs, "segment", "model"),
            segment_of_model_by_cpu=(
                cpu_ratio(costs, "segment", "model") if device.type == "cpu" else None
            ),
        ),
        stage_seconds={name: rounded(spent) for name, spent in stages.items()},
        peak_memory_bytes=peak,
    )
