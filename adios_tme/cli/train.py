"""``adios-tme train``."""

from __future__ import annotations

import os

import typer

from adios_tme.cli.options import settings_command
from adios_tme.config.train import TrainConfig
from adios_tme.run_folder.layout import REPORT
from adios_tme.terminal import command, terminal
from adios_tme.trackers.build import check_packages

train_app = typer.Typer()


@settings_command(train_app, "train", TrainConfig)
def train(config: TrainConfig) -> None:
    """Train, and say where the results are."""
    check_packages(config.tracking.trackers)  # before tissue is made or a job is submitted
    if config.demo:
        from adios_tme.cli.demo import run_demo

        run_demo(config)
        return
    if config.cluster.slurm:
        from adios_tme.launch.jobs import Training
        from adios_tme.launch.slurm import submit

        terminal().print(submit(Training(config)))
        return
    from adios_tme.launch.local import train as launch

    checkpoint = launch(config)
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun has started, the first one speaks
    console = terminal()
    folder = config.run.output_dir
    console.print(f"Done. Newest checkpoint: {checkpoint}")
    report = folder / REPORT
    if config.run.report and report.is_file():
        console.print(f"Report: {report}")
    curves = command("viz", "curves", folder, "--output", folder / "curves.png")
    console.print(f"Curves: {curves}")
