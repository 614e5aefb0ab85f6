"""``adios-tme embed``."""

from __future__ import annotations

import os

import typer

from adios_tme.cli.options import settings_command
from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.terminal import terminal

embed_app = typer.Typer()


@settings_command(embed_app, "embed", EmbedConfig)
def embed(config: EmbedConfig) -> None:
    """Embed, and say where the features are."""
    if config.cluster.slurm:
        from adios_tme.inference.embed.features_file import check_format
        from adios_tme.launch.jobs import Embedding
        from adios_tme.launch.slurm import submit

        check_format(config.format)  # before a job is submitted
        terminal().print(submit(Embedding(config)))
        return
    from adios_tme.launch.local import embed as launch

    folder = launch(config)
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun has started, the first one speaks
    terminal().print(f"Done. Features: {folder}")
