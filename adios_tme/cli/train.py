"""``adios-tme train``."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console

from adios_tme.cli.options import settings_command
from adios_tme.config.train import DEMO, TrainConfig

train_app = typer.Typer()


def demo_preset(given: dict[str, Any]) -> dict[str, Any]:
    """Settings that ``--demo`` puts under the ones that were given."""
    return DEMO if given.get("demo") else {}


@settings_command(train_app, "train", TrainConfig, preset=demo_preset)
def train(config: TrainConfig) -> None:
    """Train, and say where the results are."""
    if config.demo:
        from adios_tme.cli.demo import run_demo

        run_demo(config)
        return
    from adios_tme.launch.local import train as launch

    checkpoint = launch(config)
    console = Console(soft_wrap=True, highlight=False)
    folder = config.run.output_dir
    console.print(f"Done. Newest checkpoint: {checkpoint}")
    console.print(f"Curves: adios-tme viz curves {folder} --output {folder}/curves.png")
