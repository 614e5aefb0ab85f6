"""``adios-tme tile``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from adios_tme.cli.options import settings_command
from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import TileConfig
from adios_tme.errors import DataError
from adios_tme.files import check_output, writing
from adios_tme.terminal import command, progress_bar, table, terminal

if TYPE_CHECKING:
    from adios_tme.data.build_report import BuildReport

tile_app = typer.Typer()

#: Index of the slides beside their archives, so that a second run need not look for tissue again.
SLIDES_INDEX = "slides_dataset_index.safetensors"
PREVIEWS = "previews"


@settings_command(tile_app, "tile", TileConfig)
def tile(config: TileConfig) -> None:
    """Find tiles, cut them, draw what was taken, and say how it is used."""
    from adios_tme.data.slides.coordinates import load_h5py
    from adios_tme.data.slides.cut import cut_slides
    from adios_tme.data.slides.records import RECORDS_NAME

    if config.dry_run:
        _estimate(config)
        return
    if config.write_coordinates:
        load_h5py()  # missing, it is told before hours of work
    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    check_output(config.out / RECORDS_NAME)
    report = _find_tiles(config, config.out / SLIDES_INDEX)
    with writing(config.out), progress_bar("Cutting tiles") as on_progress:
        cut = cut_slides(report.index, config, on_progress)
    if config.previews:
        from adios_tme.viz.slides import draw_previews

        with writing(config.out / PREVIEWS), progress_bar("Drawing slides") as on_progress:
            draw_previews(report.index, config.out / PREVIEWS, config.num_workers, on_progress)
    console = terminal()
    written = table(str(config.out), "Archives", "Kept", "Tiles", "Unreadable", "MiB")
    counts = (cut.num_archives, cut.num_kept, cut.num_tiles, cut.num_unreadable)
    written.add_row(*(f"{count:,}" for count in counts), f"{cut.num_bytes / 2**20:,.1f}")
    console.print(written, "")
    _tell(report, cut.faults)
    if not cut.num_tiles:
        raise DataError(f"{config.slides_path}: no slide could be cut. {' '.join(cut.faults)}")
    size = () if config.patch_size_px == 448 else ("--patch-size-px", config.patch_size_px)
    console.print(f"Train on them: {command('train', '--data-path', config.out, *size)}")


def _find_tiles(config: TileConfig, output: Path) -> BuildReport:
    from adios_tme.data.index_builder import index_archives

    with progress_bar("Finding tissue") as on_progress:
        return index_archives(
            config.slides_path,
            PatchSelection(patch_size_px=config.patch_size_px),
            output,
            tiling=config.slides,
            num_workers=config.num_workers,
            own=[config.out],
            on_progress=on_progress,
            slides_alone=True,
        )


def _estimate(config: TileConfig) -> None:
    from adios_tme.data.slides.cut import estimate

    with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder:
        report = _find_tiles(config, Path(folder) / SLIDES_INDEX)
        found = estimate(report.index, config)
    console = terminal()
    counted = table("Nothing was written", "Slides", "Tiles", "MiB, estimated")
    counted.add_row(
        f"{found.num_slides:,}", f"{found.num_tiles:,}", f"{found.num_bytes / 2**20:,.1f}"
    )
    console.print(counted, "")
    _tell(report, [])


def _tell(report: BuildReport, faults: list[str]) -> None:
    console = terminal()
    for notice in report.notices():
        console.print(notice.text, style="bold red" if notice.is_urgent else None)
    for fault in faults:
        console.print(f"Left out: {fault}", style="bold red")
