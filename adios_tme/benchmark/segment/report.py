"""The measurement of segmenting as tables and in words."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from adios_tme.benchmark.segment.results import SegmentResult
from adios_tme.benchmark.speed_table import speed_table
from adios_tme.terminal import table

WAYS = {"segment": "adios-tme segment", "model": "mask model alone, random images"}
STAGES = {
    "reading": "reading the slide",
    "model": "mask model",
    "blending": "windows and their blending",
    "nuclei": "cleaning, splitting, outlines",
    "writing": "GeoJSON and CSV",
}


def segment_tables(results: SegmentResult) -> Iterator[Table]:
    """Speeds, and where the time goes."""
    yield speed_table(results.windows_per_second, WAYS, "Windows", "segment", "Of segment")
    stages = table("Stages, one after the other", "Stage", "Seconds", "Share")
    total = sum(results.stage_seconds.values())
    for name, seconds in results.stage_seconds.items():
        stages.add_row(STAGES[name], f"{seconds:.2f}", f"{seconds / total:.0%}")
    yield stages


def segment_summary(results: SegmentResult) -> str:
    """The ratio, memory, and what was measured on which machine."""
    ratios, machine = results.ratios, results.machine
    by_cpu = (
        f" ({ratios.segment_of_model_by_cpu:.2f} by CPU time)"
        if ratios.segment_of_model_by_cpu is not None
        else ""
    )
    lines = [
        f"segment is {ratios.segment_of_model:.2f} times as fast as its mask model alone on the "
        f"same number of windows{by_cpu}; it finds {results.nuclei_per_second:,.0f} nuclei a "
        f"second."
    ]
    if results.peak_memory_bytes is not None:
        lines.append(
            f"A process that segments these blocks takes {results.peak_memory_bytes / 2**30:.2f} "
            f"GiB of memory at most."
        )
    lines.append(
        f"{results.num_blocks} of {results.num_blocks_of_slide} blocks, {results.num_windows:,} "
        f"windows of {results.img_size} px and {results.num_nuclei:,} nuclei a timing, at "
        f"{results.microns_per_pixel} microns per pixel, channel {results.channel} from "
        f"{results.threshold:.3f} on; on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['device']}; torch {machine['torch']}."
    )
    return "\n".join(lines)
