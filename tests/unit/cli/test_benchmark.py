"""The benchmarks' commands around what they measure."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adios_tme.benchmark.data import measure as loading
from adios_tme.benchmark.throughput import variants
from adios_tme.benchmark.throughput.measure import measure
from adios_tme.benchmark.throughput.results import Measurement
from adios_tme.cli import benchmark
from adios_tme.config.commands.loading import LoadingConfig
from adios_tme.config.commands.throughput import ThroughputConfig
from adios_tme.errors import ConfigError, DataError
from tests.factories import measured_case, speed_settings

HERE = Path(__file__).parent
CASE = measured_case()
TOO_LARGE = replace(CASE, step=None)
RESULTS = Measurement({}, (CASE, TOO_LARGE))
WRITTEN = json.loads(json.dumps(RESULTS.as_json()))


@pytest.mark.parametrize(
    "command",
    [
        lambda: benchmark.throughput(ThroughputConfig(output=HERE)),
        lambda: benchmark.data(LoadingConfig(data_path=HERE, output=HERE)),
    ],
)
def test_nothing_is_measured_for_an_output_that_cannot_be(
    command: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> None:
        pytest.fail("measured")

    monkeypatch.setattr(variants, "measure_throughput", measured)
    monkeypatch.setattr(loading, "measure_loading", measured)
    with pytest.raises(DataError, match="cannot be written"):
        command()


def test_results_are_told_even_where_they_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "speed.json"

    def measured(*_: object) -> Measurement:
        output.mkdir()
        return RESULTS

    monkeypatch.setattr(variants, "measure_throughput", measured)
    with pytest.raises(DataError, match=r"speed.json: cannot be written \(.*\)\. Give another"):
        benchmark.throughput(ThroughputConfig(output=output, json_output=True))
    assert json.loads(capsys.readouterr().out) == WRITTEN


@pytest.mark.parametrize("too_large", [False, True])
def test_only_a_measurement_without_any_figure_fails(
    too_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Measurement({}, (TOO_LARGE,)) if too_large else RESULTS
    monkeypatch.setattr(variants, "measure_throughput", lambda *_: results)
    config = ThroughputConfig(output=tmp_path / "speed.json", json_output=True)
    expected = (
        pytest.raises(ConfigError, match="Lower --batch-size") if too_large else nullcontext()
    )
    with expected:
        benchmark.throughput(config)
    assert (
        json.loads((tmp_path / "speed.json").read_text())["cases"]
        == WRITTEN["cases"][-len(results.cases) :]
    )


def test_names_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "runs[best]/[/x]:cat:"
    results = measure(speed_settings(batch_size=10**9), torch.device("cpu"), {})
    results.cases[0].settings["mask_encoder_checkpoint"] = name
    monkeypatch.setattr(variants, "measure_throughput", lambda *_: results)
    with pytest.raises(ConfigError):
        benchmark.throughput(ThroughputConfig())
    assert f"mask_encoder_checkpoint {name}" in capsys.readouterr().out
