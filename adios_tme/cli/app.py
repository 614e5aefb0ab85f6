"""The command line: registers the commands, and turns known errors into messages."""

from __future__ import annotations

import sys

import typer

from adios_tme.cli.benchmark import benchmark_app
from adios_tme.cli.doctor import doctor_app
from adios_tme.cli.embed import embed_app
from adios_tme.cli.export import export_app
from adios_tme.cli.index import index_app
from adios_tme.cli.options import command_group
from adios_tme.cli.presets import presets_app
from adios_tme.cli.sample import sample_app
from adios_tme.cli.segment import segment_app
from adios_tme.cli.tile import tile_app
from adios_tme.cli.train import train_app
from adios_tme.cli.viz import viz_app
from adios_tme.errors import AdiosError
from adios_tme.terminal import terminal

app = command_group(
    "adios-tme",
    "Learn masks and encoders from H&E patches without labels, by adversarial masking (ADIOS).",
)

for part in (
    train_app,
    index_app,
    embed_app,
    tile_app,
    segment_app,
    export_app,
    viz_app,
    benchmark_app,
    sample_app,
    presets_app,
    doctor_app,
):
    app.add_typer(part)


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    """Learn masks and encoders from H&E patches without labels, by adversarial masking (ADIOS)."""
    if show:
        from adios_tme.version import __version__

        typer.echo(f"adios-tme {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; known errors print one message and leave with their exit code."""
    try:
        app()
    except AdiosError as error:
        console = terminal(stderr=True)
        console.print("Error:", style="bold red", end=" ")
        console.print(str(error))
        sys.exit(error.exit_code)
