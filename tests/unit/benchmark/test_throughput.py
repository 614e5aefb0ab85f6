"""The speed benchmark: cases, phases, counted work and ratios. What is fast is not tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adios_tme.benchmark.contender import Clock
from adios_tme.benchmark.cost import StepCost
from adios_tme.benchmark.machine import PeakMemory
from adios_tme.benchmark.throughput import cases
from adios_tme.benchmark.throughput_report import measured_in_words, throughput_tables
from adios_tme.config.load import build, nest
from adios_tme.config.throughput import ThroughputConfig
from adios_tme.errors import ConfigError, DataError
from adios_tme.launch.throughput import measure_throughput, naive, step_of_a_run
from tests.factories import run_command, tiny_config

CPU = torch.device("cpu")
TINY = {
    "arch": "vit_tiny",
    "embed_dim": 64,
    "num_heads": 1,
    "depth": 4,
    "patch_size": 4,
    "img_size": 32,
    "batch_size": 4,
    "mask_model_type": "adios",
    "crops_per_mask": 0,
    "steps": 1,
    "device": "cpu",
}


def settings(**flags: Any) -> ThroughputConfig:
    return build(ThroughputConfig, nest(ThroughputConfig, TINY | flags))


def test_a_sweep_is_every_combination() -> None:
    found = cases(settings(sweep=("batch_size=2,8", "precision=fp32,bf16")))
    pairs = [(case.config.data.batch_size_per_gpu, case.config.compute.precision) for case in found]
    assert pairs == [(2, "fp32"), (2, "bf16"), (8, "fp32"), (8, "bf16")]
    assert found[1].settings["precision"] == "bf16"
    (one,) = cases(settings())
    assert one.config.model.embed_dim == 64
    (other,) = cases(settings(sweep=("num-masks=5",)))
    assert other.settings["num_masks"] == 5


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("batch_size", "expected name=value,value"),
        ("colour=red", "colour is no setting of a run"),
        ("precision=fp64", "expected one of"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(sweep: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cases(settings(sweep=(sweep,)))


@pytest.mark.parametrize("way", [step_of_a_run, naive])
def test_phases_share_a_step_without_rest(way: Any, tmp_path: Path) -> None:
    clock = Clock(way(tiny_config(tmp_path, tmp_path), CPU), CPU)
    seconds, phases = clock.time(torch.randn(4, 3, 32, 32))
    assert sum(phases.values()) == pytest.approx(seconds)
    assert list(phases) == [
        "rest",
        "mask forward",
        "views",
        "student forward",
        "student backward",
        "student update",
        "judge forward",
        "judge backward",
        "mask backward",
        "mask update",
    ]


def test_the_high_water_of_memory_is_seen() -> None:
    memory = PeakMemory(CPU)
    if memory.read() is None:
        pytest.skip("this system does not tell its high-water mark")
    torch.ones(2**24)  # 64 MiB, gone at once
    peak = memory.read()
    assert peak is not None
    assert peak == pytest.approx(2**26, rel=0.2)  # the kernel counts in batches of pages


def test_a_case_beside_its_baseline_and_an_earlier_measurement(tmp_path: Path) -> None:
    first = measure_throughput(settings(baseline="naive"), lambda done, total: None)
    (case,) = first["cases"]
    (expected,) = cases(settings())
    assert case["gflop_per_image"] == pytest.approx(
        StepCost.of(expected.config).flops / 1e9, rel=1e-3
    )
    assert case["gflop_per_image"] < case["floor_gflop_per_image"]
    assert case["estimated_memory_gib"] == StepCost.of(expected.config).peak_bytes(4) / 2**30
    naive_case = case["baselines"]["naive"]
    assert naive_case["ratio"]["flops"] == pytest.approx(
        case["gflop_per_image"] / naive_case["gflop_per_image"]
    )
    assert naive_case["ratio"]["flops"] < 0.85
    assert case["images_per_second"] == pytest.approx(4 / case["step_seconds"])

    saved = tmp_path / "first.json"
    saved.write_text(json.dumps(first))
    second = measure_throughput(settings(against=saved), lambda done, total: None)
    ratio = second["cases"][0]["against"]
    assert ratio["speed"] == pytest.approx(
        second["cases"][0]["images_per_second"] / case["images_per_second"]
    )
    assert ratio["flops"] == 1
    assert "vit_tiny, adios, 32 px, N 3, K 0, batch 4" in measured_in_words(second)
    assert len(list(throughput_tables(first))) == 2


def test_an_earlier_measurement_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        measure_throughput(settings(against=tmp_path / "none.json"), lambda done, total: None)
    other = tmp_path / "other.json"
    other.write_text("[]")
    with pytest.raises(DataError, match="is not a measurement"):
        measure_throughput(settings(against=other), lambda done, total: None)


def test_the_command_prints_json_and_writes_it(tmp_path: Path) -> None:
    flags = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
    output = tmp_path / "sub" / "speed.json"
    done = run_command(
        "benchmark", "throughput", *flags, "--profile", "--json", "--output", str(output)
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == json.loads(output.read_text())
    assert sum(kernel["share"] for kernel in results["cases"][0]["kernels"]) <= 1.0001
    assert results["machine"]["threads"] == 1


@pytest.mark.gpu
def test_events_time_a_step_on_cuda() -> None:
    results = measure_throughput(
        settings(device="cuda", baseline="all", profile=True), lambda done, total: None
    )
    (case,) = results["cases"]
    assert set(case["baselines"]) == {"naive", "naive_checkpointing", "naive_empty_cache"}
    assert sum(case["phases"].values()) == pytest.approx(case["step_seconds"], rel=0.05)
    assert case["largest_batch"] > 4
