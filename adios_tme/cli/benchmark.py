"""``adios-tme benchmark``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import typer
from rich.table import Table

from adios_tme.benchmark.results_file import ResultsFile
from adios_tme.cli.options import command_group, settings_command
from adios_tme.config.commands.benchmark import NucleiConfig
from adios_tme.config.commands.embed import EmbedSpeedConfig
from adios_tme.config.commands.loading import LoadingConfig
from adios_tme.config.commands.probe import ProbeConfig
from adios_tme.config.commands.segment import SegmentSpeedConfig
from adios_tme.config.commands.throughput import ThroughputConfig
from adios_tme.errors import ConfigError
from adios_tme.terminal import print_json, progress_bar, tell_left_out, terminal

benchmark_app = typer.Typer()
_group = command_group("benchmark", "Measure what masks are worth, and how fast training goes.")
benchmark_app.add_typer(_group)


def nuclei(config: NucleiConfig) -> None:
    """Score a run, print how good its masks are, and write the files."""
    from adios_tme.benchmark.nuclei.report import (
        channels_table,
        cost_summary,
        no_labels_table,
        results_table,
        tissues_table,
        write_report,
    )
    from adios_tme.benchmark.nuclei.run import score_run
    from adios_tme.benchmark.nuclei.verdict import summary
    from adios_tme.data.left_out import from_json
    from adios_tme.distributed.world import choose_device

    with progress_bar("Scoring") as on_progress:
        results = score_run(config, choose_device(config.device), on_progress)
    write_report(results, config.output)
    console = terminal()
    if config.json_output:
        print_json(results.as_json())
        return
    tables = (results_table, no_labels_table, channels_table, tissues_table)
    for table in (draw(results) for draw in tables):
        if table:
            console.print(table)
    console.print(summary(results))
    tell_left_out(from_json(results.left_out).lines())
    if config.profile:
        console.print(cost_summary(results, config.num_workers))
    console.print(f"Files: {config.output}/nuclei_benchmark.json, .csv, .png, .svg")


def probe(config: ProbeConfig) -> None:
    """Probe a run, print how good its encoder is, and write the files."""
    from adios_tme.benchmark.probe.report import notes, results_tables, summary, write_report
    from adios_tme.benchmark.probe.run import probe_run
    from adios_tme.data.left_out import from_json
    from adios_tme.distributed.world import choose_device

    with progress_bar("Probing") as on_progress:
        results = probe_run(config, choose_device(config.device), on_progress)
    write_report(results, config.output)
    if config.json_output:
        print_json(results.as_json())
        return
    console = terminal()
    for shown in results_tables(results):
        console.print(shown, "")
    for line in summary(results):
        console.print(line)
    for line in notes(results):
        console.print("Note:", style="yellow", end=" ")
        console.print(line)
    for each in results.sets:
        tell_left_out(from_json(each.left_out).lines())
    console.print(f"Files: {config.output}/probe.json, .csv, .png, .svg")


def throughput(config: ThroughputConfig) -> None:
    """Time the training step and print what it reaches."""
    from adios_tme.benchmark.throughput.report import throughput_summary, throughput_tables
    from adios_tme.benchmark.throughput.variants import measure_throughput

    output = ResultsFile.checked(config.output)
    with progress_bar("Measuring") as on_progress:
        results = measure_throughput(
            config, on_progress, lambda so_far: output.try_to_write(so_far.as_json())
        )
    _tell(results, throughput_tables, throughput_summary, as_json=config.json_output)
    output.write(results.as_json())
    if results.nothing_fits:
        raise ConfigError("No case fits the memory of the device. Lower --batch-size.")


def data(config: LoadingConfig) -> None:
    """Measure the loader and print what it reaches."""
    if config.slides.mpp is not None:
        _data_of_slides(config)
        return
    from adios_tme.benchmark.data.measure import measure_loading
    from adios_tme.benchmark.data.report import loading_summary, loading_tables

    _measured(config, measure_loading, loading_tables, loading_summary)


def embed(config: EmbedSpeedConfig) -> None:
    """Measure the speed of features and print it."""
    from adios_tme.benchmark.embed.measure import measure_embedding
    from adios_tme.benchmark.embed.report import embed_summary, embed_tables

    _measured(config, measure_embedding, embed_tables, embed_summary)


def segment(config: SegmentSpeedConfig) -> None:
    """Measure the speed of nuclei from slides and print it."""
    from adios_tme.benchmark.segment.measure import measure_segmenting
    from adios_tme.benchmark.segment.report import segment_summary, segment_tables

    _measured(config, measure_segmenting, segment_tables, segment_summary)


def _data_of_slides(config: LoadingConfig) -> None:
    from adios_tme.benchmark.data.slides import measure_slides, slides_summary, slides_tables

    _measured(config, measure_slides, slides_tables, slides_summary)


class Results(Protocol):
    """Measurements of one benchmark."""

    def as_json(self) -> dict[str, Any]:
        """The values that are written."""


SomeResults = TypeVar("SomeResults", bound=Results)
SomeConfig = TypeVar("SomeConfig", LoadingConfig, EmbedSpeedConfig, SegmentSpeedConfig)


def _measured(
    config: SomeConfig,
    measure: Callable[[SomeConfig, Callable[[int, int], None]], SomeResults],
    tables: Callable[[SomeResults], Iterable[Table]],
    summary: Callable[[SomeResults], str],
) -> None:
    """Measure with a progress bar, print, and write where the settings ask for it."""
    output = ResultsFile.checked(config.output)
    with progress_bar("Measuring") as on_progress:
        results = measure(config, on_progress)
    _tell(results, tables, summary, as_json=config.json_output)
    output.write(results.as_json())


def _tell(
    results: SomeResults,
    tables: Callable[[SomeResults], Iterable[Table]],
    summary: Callable[[SomeResults], str],
    *,
    as_json: bool,
) -> None:
    """Print measurements as the settings ask."""
    console = terminal()
    if as_json:
        print_json(results.as_json())
        return
    for table in tables(results):
        console.print(table, "")
    console.print(summary(results))


settings_command(_group, "nuclei", NucleiConfig)(nuclei)
settings_command(benchmark_app, "benchmark-nuclei", NucleiConfig, hidden=True)(nuclei)
settings_command(_group, "probe", ProbeConfig)(probe)
settings_command(_group, "throughput", ThroughputConfig)(throughput)
settings_command(_group, "data", LoadingConfig)(data)
settings_command(_group, "embed", EmbedSpeedConfig)(embed)
settings_command(_group, "segment", SegmentSpeedConfig)(segment)
