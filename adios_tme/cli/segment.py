"""``adios-tme segment``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table

from adios_tme.cli.options import settings_command
from adios_tme.config.commands.segment import SegmentConfig
from adios_tme.terminal import progress_bar, table, terminal

if TYPE_CHECKING:
    from adios_tme.inference.segment.records import Record

segment_app = typer.Typer()

#: Lines of the table; summary.csv has all.
NUM_SHOWN = 20


@settings_command(segment_app, "segment", SegmentConfig)
def segment(config: SegmentConfig) -> None:
    """Find nuclei, say how they were chosen and how many there are."""
    from adios_tme.distributed.world import choose_device
    from adios_tme.inference.clean import USUAL_SCALE
    from adios_tme.inference.segment.records import SUMMARY
    from adios_tme.inference.segment.run import segment_all

    console = terminal()
    with progress_bar("Segmenting") as on_progress:
        done = segment_all(config, choose_device(config.device), console.print, on_progress)
    console.print(_table(done.records), "")
    if len(done.records) > NUM_SHOWN:
        console.print(f"{len(done.records) - NUM_SHOWN:,} more are in {config.output / SUMMARY}.")
    unscaled = sum(record.microns_per_pixel is None for record in done.records)
    if unscaled:
        console.print(
            f"The scale of {unscaled:,} is unknown: areas are in pixels, and masks were cleaned as "
            f"at {USUAL_SCALE} microns per pixel. Give --input-scale if it is known."
        )
    for fault in done.faults[:NUM_SHOWN]:
        console.print(f"Left out: {fault}", style="bold red")
    if len(done.faults) > NUM_SHOWN:
        console.print(f"Left out: {len(done.faults) - NUM_SHOWN:,} more.", style="bold red")
    if done.num_kept:
        console.print(f"Finished before, and skipped: {done.num_kept:,} of {len(done.records):,}.")
    pictures = "" if config.ome_tiff is None else ", NAME.ome.tiff"
    console.print(
        f"Files: {config.output}/{SUMMARY}, and NAME.geojson{pictures} and NAME.csv of each"
    )


def _table(records: list[Record]) -> Table:
    shown = table("Nuclei", "", "Nuclei", "Mean area", "mm2", "Per mm2")
    for record in records[:NUM_SHOWN]:
        unit = "um2" if record.microns_per_pixel else "px"
        shown.add_row(
            record.name,
            f"{record.num_nuclei:,}",
            f"{record.mean_area:.1f} {unit}" if record.num_nuclei else "-",
            f"{record.area_mm2:.3f}" if record.area_mm2 else "-",
            f"{record.num_nuclei / record.area_mm2:,.0f}" if record.area_mm2 else "-",
        )
    return shown
