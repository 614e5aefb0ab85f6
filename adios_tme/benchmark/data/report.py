"""The measured loader as tables and in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

STAGES = {
    "look_up": "look up a batch of patches",
    "read": "read, inflate, check",
    "decode": "decode",
    "resize": "resize in the worker",
    "hand_over": "copy to the shared slot",
    "pillow_decode": "decode by Pillow",
    "pillow_way": "decode and resize by Pillow",
}
WAYS = {
    "decode": "decoder alone (ceiling)",
    "one_worker": "one worker, resize on the device",
    "one_worker_resizing": "one worker, resize in it",
    "all_workers": "all workers, resize on the device",
    "pillow_way": "Pillow alone, decode and resize",
}


def loading_tables(results: dict[str, Any]) -> Iterator[Table]:
    """Speeds, stages, archives and decoders."""
    ceiling = results["images_per_second"]["decode"]
    speeds = Table("Timed", "Images/s", "Of the ceiling", title="Speed")
    for name, speed in results["images_per_second"].items():
        speeds.add_row(WAYS[name], f"{speed:,.0f}", f"{speed / ceiling:.2f}")
    yield speeds
    stages = Table("Stage", "ms a patch", "CPU ms", title="Split, each stage alone")
    for name, cost in results["split_ms"].items():
        stages.add_row(STAGES[name], f"{cost:.3f}", _known(results["split_cpu_ms"][name], 3))
    yield stages
    archives = Table(
        *("Members", "Loader, ms", "Open per patch, ms", "Times as fast", "By CPU", "Of the first"),
        title="One worker, by the size of the archive",
    )
    for entry in results["archives"]:
        archives.add_row(
            f"{entry['members']:,}",
            f"{entry['loader_ms']:.2f}",
            f"{entry['open_per_patch_ms']:.1f}",
            f"{entry['loader_over_open_per_patch']:.1f}",
            _known(entry["loader_over_open_per_patch_by_cpu"], 1),
            _known(entry["loader_over_smallest_archive"], 2),
        )
    yield archives
    decoders = Table("Format", "Pillow, ms", "Here, ms", "Times as fast", title="Decoders")
    for entry in results["decoders"]:
        times = f"{entry['here_over_pillow']:.2f}"
        decoders.add_row(
            entry["format"], f"{entry['pillow_ms']:.2f}", f"{entry['here_ms']:.2f}", times
        )
    yield decoders


def _known(figure: float | None, digits: int) -> str:
    """A figure by CPU time, which not every system tells."""
    return "-" if figure is None else f"{figure:.{digits}f}"


def loading_summary(results: dict[str, Any]) -> str:
    """Ratios, index and order, and the machine that they were measured on."""
    ratios, index, order = results["ratios"], results["indexing"], results["order"]
    machine, patches = results["machine"], results["patches"]
    height, width = patches["first_size"]
    return "\n".join(
        [
            f"One worker reaches {ratios['one_worker_of_decode_ceiling']:.2f} of its decoder's "
            f"speed ({_known(ratios['one_worker_of_decode_ceiling_by_cpu'], 2)} by CPU time), and "
            f"{ratios['one_worker_over_pillow_way']:.1f} times that of Pillow's way.",
            f"Indexing lists {index['members_per_second']:,.0f} members a second a core, "
            f"{index['over_zipfile']:.1f} times as many as zipfile; a position of the order takes "
            f"{order['microseconds_per_position']:.2f} microseconds.",
            f"{patches['count']:,} patches in {patches['archives']:,} archives; the first is "
            f"{width} x {height} px, {patches['mean_bytes'] / 1024:.0f} KiB on average.",
            f"On {machine['processor']}, {machine['cores']} cores; kornia-rs "
            f"{machine['kornia_rs']}, Pillow {machine['pillow']}, torch {machine['torch']}, "
            f"Python {machine['python']}.",
        ]
    )
