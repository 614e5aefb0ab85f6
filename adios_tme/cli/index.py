"""``adios-tme index``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from adios_tme.cli.options import settings_command
from adios_tme.config.data import IndexConfig
from adios_tme.errors import ConfigError, DataError
from adios_tme.files import check_output, writing
from adios_tme.terminal import print_json, progress_bar, table, terminal

if TYPE_CHECKING:
    from adios_tme.data.build_report import BuildReport
    from adios_tme.data.index import DatasetIndex

index_app = typer.Typer()

#: Damaged patches that are named on the terminal.
NUM_SHOWN = 20


@settings_command(index_app, "index", IndexConfig, aliases=("index-dataset",))
def index(config: IndexConfig) -> None:
    """Build the index and say what is in it; then measure, draw and verify what is asked for."""
    _check_outputs(config)
    report = _build(config)
    results: dict[str, Any] = _facts(config, report)
    if config.stats:
        results["stats"] = _stats(config, report.index)
    if config.contact_sheet is not None:
        _draw(config, report.index)
    if config.previews is not None:
        _draw_slides(config.previews, config.num_workers, report.index)
    if config.verify:
        results["verify"] = _verify(config, report.index)
    if config.json_output:
        print_json(results)
    else:
        console = terminal()
        for each in _tables(results):
            console.print(each, "")
        for notice in report.notices():
            console.print(notice.text, style="bold red" if notice.is_urgent else None)
    if config.verify and (results["verify"]["num_damaged"] or results["faults"]):
        raise DataError(_damage_in_words(results["verify"], len(results["faults"])))


def _check_outputs(config: IndexConfig) -> None:
    """Raise before any work if what is asked for cannot be written."""
    from adios_tme.data.sources import LISTING_SUFFIX
    from adios_tme.viz.contact_sheet import SUFFIXES

    is_list, output = config.format == "pickle", config.output
    if is_list and output is not None:
        check_output(output)
    if is_list and output is None and config.data_path.is_file():
        raise ConfigError(
            f"{config.data_path}: is a file, no folder that takes the list. Give --output."
        )
    has_suffix = output is not None and output.suffix.lower() == LISTING_SUFFIX
    if output is not None and not output.is_dir() and is_list is not has_suffix:
        advice = "End the name of a list in .pkl" if is_list else "Add --format pickle"
        raise ConfigError(
            f"{output}: what ends in .pkl is read as a list of --format pickle, and nothing else "
            f"is. {advice}, or give another --output."
        )
    if config.contact_sheet is not None:
        check_output(config.contact_sheet, SUFFIXES)


def _build(config: IndexConfig) -> BuildReport:
    from adios_tme.data.index_builder import index_archives

    output = None if config.format == "pickle" else config.output
    with progress_bar("Reading archives") as on_progress:
        return index_archives(
            config.data_path,
            config.patches,
            output,
            tiling=config.slides,
            rebuild=config.rebuild,
            num_workers=config.num_workers,
            on_progress=on_progress,
        )


def _facts(config: IndexConfig, report: BuildReport) -> dict[str, Any]:
    from adios_tme.data.index_builder import PICKLE_NAME, write_pickle

    path = report.index.path
    if config.format == "pickle":
        path = config.output or config.data_path / PICKLE_NAME
        write_pickle(report.index, path)
    return {
        "path": str(path),
        "num_archives": report.index.num_archives,
        "num_scanned": report.num_scanned,
        "num_patches": len(report.index),
        "num_slides": report.index.num_slides(),
        "num_bytes": path.stat().st_size,
        **report.as_json(),
    }


def _stats(config: IndexConfig, index: DatasetIndex) -> dict[str, Any]:
    from adios_tme.data.inspection import measure_index

    with progress_bar("Measuring patches") as on_progress:
        return measure_index(index, config.num_samples, config.num_workers, on_progress)


def _draw(config: IndexConfig, index: DatasetIndex) -> None:
    from adios_tme.data.inspection import read_sample
    from adios_tme.viz.contact_sheet import draw_contact_sheet

    assert config.contact_sheet is not None
    images = read_sample(index, config.num_drawn)
    with writing(config.contact_sheet):
        draw_contact_sheet(images, config.contact_sheet)


def _draw_slides(folder: Path, num_workers: int, index: DatasetIndex) -> None:
    from adios_tme.viz.slides import draw_previews

    with writing(folder), progress_bar("Drawing slides") as on_progress:
        draw_previews(index, folder, num_workers, on_progress)


def _verify(config: IndexConfig, index: DatasetIndex) -> dict[str, Any]:
    from adios_tme.data.inspection import verify_index
    from adios_tme.data.members import printable

    with progress_bar("Reading patches") as on_progress:
        found = verify_index(index, config.num_workers, on_progress)
    return {
        "num_patches": found.num_patches,
        "num_bytes": found.num_bytes,
        "num_damaged": len(found.damaged),
        "num_archives_damaged": len({damage.archive for damage in found.damaged}),
        "reasons": dict(found.reasons().most_common()),
        "damaged": [
            {
                "archive": printable(damage.archive),
                "name": printable(damage.name),
                "reason": damage.reason,
            }
            for damage in found.damaged
        ],
    }


def _tables(results: dict[str, Any]) -> Iterator[Table]:
    found = table(results["path"], "Sources", "Scanned now", "Patches", "Slides", "Index")
    counts = (results[f"num_{what}"] for what in ("archives", "scanned", "patches", "slides"))
    found.add_row(*(f"{count:,}" for count in counts), f"{results['num_bytes'] / 1024:.1f} KiB")
    yield found
    if "stats" in results:
        yield _stats_table(results["stats"])
    if "verify" in results:
        yield _verify_table(results["verify"])


def _stats_table(stats: dict[str, Any]) -> Table:
    slides = stats["patches_per_slide"]
    measured = table(f"{stats['num_sampled']:,} random patches", "", "", numbers=False)
    measured.show_header = False
    measured.add_row("Mean (--mean)", " ".join(f"{value:.4f}" for value in stats["mean"]))
    measured.add_row(
        "Standard deviation (--std)", " ".join(f"{value:.4f}" for value in stats["std"])
    )
    measured.add_row("Sizes in pixels", _counted(stats["sizes"]))
    measured.add_row("Scale in names", _counted(stats["scales"]) or "none stated")
    placed = f"{stats['num_placed']:,} of {stats['num_sampled'] + stats['num_damaged']:,} patches"
    measured.add_row("Coordinates in names", placed if stats["num_placed"] else "none stated")
    measured.add_row(
        "Patches per slide",
        f"{slides['least']:,} to {slides['most']:,}, median {slides['median']:,}",
    )
    measured.add_row("Damaged in the sample", f"{stats['num_damaged']:,}")
    return measured


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count:,})" for name, count in list(counts.items())[:NUM_SHOWN]]
    return ", ".join(shown) + (" ..." if len(counts) > NUM_SHOWN else "")


def _verify_table(verify: dict[str, Any]) -> Table:
    title = (
        f"{verify['num_patches']:,} patches read, {verify['num_bytes'] / 2**20:,.1f} MiB; "
        f"{verify['num_damaged']:,} damaged"
    )
    listed = table(title, "Archive", "Patch", "Reason", numbers=False)
    if not verify["damaged"]:
        listed.add_row("none", "", "")
    for entry in verify["damaged"][:NUM_SHOWN]:
        listed.add_row(entry["archive"], entry["name"], entry["reason"])
    if verify["num_damaged"] > NUM_SHOWN:
        listed.add_row("...", f"{verify['num_damaged'] - NUM_SHOWN:,} more (--json lists all)", "")
    return listed


def _damage_in_words(verify: dict[str, Any], num_left_out: int) -> str:
    reasons = ", ".join(f"{reason} ({count})" for reason, count in verify["reasons"].items())
    return (
        f"{verify['num_damaged']} of {verify['num_patches']} patches in "
        f"{verify['num_archives_damaged']} archives or folders cannot be read "
        f"({reasons or 'none'}), and {num_left_out} archives or folders cannot be listed. "
        f"Write those again; training goes on without them."
    )
