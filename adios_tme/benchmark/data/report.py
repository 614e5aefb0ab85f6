"""The measured loader as tables and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table

from adios_tme.benchmark.data.results import (
    ArchiveResult,
    DecoderResult,
    LoaderResult,
    Measurement,
)
from adios_tme.terminal import table

STAGES = {
    "look_up": "look up a batch of patches",
    "read": "read, inflate, check",
    "decode": "decode",
    "resize": "resize in the worker",
    "hand_over": "copy to the shared slot",
    "pillow_decode": "decode by Pillow",
    "pillow_way": "decode and resize by Pillow",
}
VARIANTS = {
    "decode": "decoder alone (ceiling)",
    "one_worker": "one worker, resize on the device",
    "one_worker_resizing": "one worker, resize in it",
    "all_workers": "all workers, resize on the device",
    "pillow_way": "Pillow alone, decode and resize",
}


def loading_tables(results: Measurement) -> Iterator[Table]:
    """Speeds, stages, archives and decoders."""
    yield _speeds(results.loader)
    yield _stages(results.loader)
    yield _archives(results.archives)
    yield _decoders(results.decoders)


def _speeds(loader: LoaderResult) -> Table:
    ceiling = loader.images_per_second["decode"]
    speeds = table("Speed", "Timed", "Images/s", "Of the ceiling")
    for name, speed in loader.images_per_second.items():
        speeds.add_row(VARIANTS[name], f"{speed:,.0f}", f"{speed / ceiling:.2f}")
    return speeds


def _stages(loader: LoaderResult) -> Table:
    stages = table("Split, each stage alone", "Stage", "ms a patch", "CPU ms")
    for name, cost in loader.split_ms.items():
        stages.add_row(STAGES[name], f"{cost:.3f}", _known(loader.split_cpu_ms[name], 3))
    return stages


def _archives(results: Iterable[ArchiveResult]) -> Table:
    columns = ("Loader, ms", "Open per patch, ms", "Times as fast", "By CPU", "Of the first")
    archives = table("One worker, by the size of the archive", "Members", *columns)
    for result in results:
        archives.add_row(
            f"{result.members:,}",
            f"{result.loader_ms:.2f}",
            f"{result.open_per_patch_ms:.1f}",
            f"{result.loader_over_open_per_patch:.1f}",
            _known(result.loader_over_open_per_patch_by_cpu, 1),
            _known(result.loader_over_smallest_archive, 2),
        )
    return archives


def _decoders(results: Iterable[DecoderResult]) -> Table:
    decoders = table("Decoders", "Format", "Pillow, ms", "Here, ms", "Times as fast")
    for result in results:
        figures = (result.pillow_ms, result.here_ms, result.here_over_pillow)
        decoders.add_row(result.format, *(f"{figure:.2f}" for figure in figures))
    return decoders


def _known(figure: float | None, digits: int) -> str:
    """A figure by CPU time, which not every system tells."""
    return "-" if figure is None else f"{figure:.{digits}f}"


def loading_summary(results: Measurement) -> str:
    """Ratios, index and order, and the machine that they were measured on."""
    ratios, index, machine = results.loader.ratios, results.indexing, results.machine
    patches = results.patches
    height, width = patches.first_size
    return "\n".join(
        [
            f"One worker reaches {ratios.one_worker_of_decode_ceiling:.2f} of its decoder's "
            f"speed ({_known(ratios.one_worker_of_decode_ceiling_by_cpu, 2)} by CPU time), and "
            f"{ratios.one_worker_over_pillow_way:.1f} times that of Pillow.",
            f"Indexing lists {index.members_per_second:,.0f} members a second a core, "
            f"{index.over_zipfile:.1f} times as many as zipfile; a position of the order takes "
            f"{results.order.microseconds_per_position:.2f} microseconds.",
            f"{patches.count:,} patches in {patches.archives:,} archives or folders; the first is "
            f"{width} x {height} px, {patches.mean_bytes / 1024:.0f} KiB on average.",
            f"On {machine['processor']}, {machine['cores']} cores; kornia-rs "
            f"{machine['kornia_rs']}, Pillow {machine['pillow']}, torch {machine['torch']}, "
            f"Python {machine['python']}.",
        ]
    )
