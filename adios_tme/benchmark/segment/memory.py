"""The memory of a process that segments some blocks once, and does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

from adios_tme.benchmark.machine import peak_resident
from adios_tme.benchmark.segment.bench import Bench
from adios_tme.config.commands.segment import SegmentSpeedConfig
from adios_tme.distributed.world import choose_device
from adios_tme.errors import LaunchError
from adios_tme.inference.segment.nuclei import Chosen


def peak_memory(config: SegmentSpeedConfig, chosen: Chosen) -> int | None:
    """Most bytes that were resident in it, from its start on; None where the system does not tell.

    Args:
        config: Which blocks of what.
        chosen: The mask of nuclei, which that process does not look for.

    Raises:
        LaunchError: If the process ends otherwise.
    """
    stated = {"channel": chosen.channel + 1, "threshold": chosen.threshold}
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name],
        input=config.model_copy(update=stated).model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise LaunchError(
            f"memory: the process that segments by itself ended with {done.returncode} "
            f"({said[-1]}). Free memory, and measure again."
        )
    peak: int | None = json.loads(done.stdout.splitlines()[-1])
    return peak


def _segment_once() -> None:
    config = SegmentSpeedConfig.model_validate_json(sys.stdin.read())
    Bench.open(config, choose_device(config.device)).segment()
    sys.stdout.write(json.dumps(peak_resident()) + "\n")


if __name__ == "__main__":
    _segment_once()
