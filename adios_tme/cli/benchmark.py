"""``adios-tme benchmark``."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console

from adios_tme.cli.options import command_group, settings_command
from adios_tme.config.benchmark import NucleiConfig
from adios_tme.viz.progress import progress_bar

benchmark_app = typer.Typer()
_group = command_group("benchmark", "Measure what masks are worth.")
benchmark_app.add_typer(_group)


def nuclei(config: NucleiConfig) -> None:
    """Score a run, print what it is worth, and write the files."""
    from adios_tme.benchmark.nuclei import score_run
    from adios_tme.benchmark.report import draw_results, in_words, results_table, write_csv
    from adios_tme.distributed import choose_device

    with progress_bar("Scoring") as on_progress:
        results = score_run(
            config.run,
            config.labels,
            config.output,
            calibration=config.calibration,
            seed=config.seed,
            device=choose_device(config.device),
            on_progress=on_progress,
        )
    write_csv(results, config.output / "nuclei_benchmark.csv")
    draw_results(results, config.output / "nuclei_benchmark.png")
    console = Console(soft_wrap=True, highlight=False)
    if config.json_output:
        console.print_json(json.dumps(asdict(results)))
        return
    console.print(results_table(results))
    console.print(in_words(results))
    console.print(f"Files: {config.output}/nuclei_benchmark.json, .csv, .png")


settings_command(_group, "nuclei", NucleiConfig)(nuclei)
settings_command(benchmark_app, "benchmark-nuclei", NucleiConfig, hidden=True)(nuclei)
