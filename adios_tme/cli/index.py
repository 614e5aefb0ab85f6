"""``adios-tme index``."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from adios_tme.cli.options import settings_command
from adios_tme.config.data import IndexConfig
from adios_tme.viz.progress import progress_bar

index_app = typer.Typer()


@settings_command(index_app, "index", IndexConfig, aliases=("index-dataset",))
def index(config: IndexConfig) -> None:
    """Build the index and say what is in it."""
    from adios_tme.data.indexing import PICKLE_NAME, index_archives, write_pickle

    wants_pickle = config.format == "pickle"
    output = None if wants_pickle else config.output
    with progress_bar("Reading archives") as on_progress:
        report = index_archives(
            config.data_path,
            config.patches,
            output,
            rebuild=config.rebuild,
            on_progress=on_progress,
        )
    path = report.index.path
    if wants_pickle:
        path = config.output or config.data_path / PICKLE_NAME
        write_pickle(report.index, path)
    console = Console(soft_wrap=True, highlight=False)
    table = Table("Archives", "Scanned now", "Patches", "Slides", "Index", title=str(path))
    counts = (report.index.num_archives, report.num_scanned, len(report.index))
    size = f"{path.stat().st_size / 1024:.1f} KiB"
    table.add_row(*(f"{count:,}" for count in counts), f"{report.index.num_slides():,}", size)
    console.print(table)
    for fault in report.faults:
        console.print("[yellow]Left out:[/]", end=" ")
        console.print(fault.message, markup=False)
