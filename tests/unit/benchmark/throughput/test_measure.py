"""The speed benchmark: cases, phases, counted work and ratios. What is fast is not tested."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from adios_tme.benchmark.machine import PEAK_SIDE, PeakMemory
from adios_tme.benchmark.throughput.cases import cases
from adios_tme.benchmark.throughput.cost import StepCost
from adios_tme.benchmark.throughput.earlier import read_earlier
from adios_tme.benchmark.throughput.measure import FAST, measure
from adios_tme.benchmark.throughput.phases import BuildVariant, Clock, StepVariant
from adios_tme.benchmark.throughput.report import throughput_summary, throughput_tables
from adios_tme.benchmark.throughput.results import Measurement
from adios_tme.benchmark.throughput.variants import measure_throughput, naive, step_of_a_run
from adios_tme.config.train import TrainConfig
from tests.factories import TINY_SPEED, run_command, speed_settings, tiny_config

CPU = torch.device("cpu")
#: What is written there resets the high-water mark of memory.
CLEAR_REFS = "/proc/self/clear_refs"


@pytest.fixture(autouse=True)
def _quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller product stands for the peak of the machine, which nothing here depends on."""
    monkeypatch.setitem(PEAK_SIDE, "cpu", 128)


@pytest.mark.parametrize("variant", [step_of_a_run, naive])
def test_phases_share_a_step_without_rest(variant: BuildVariant, tmp_path: Path) -> None:
    clock = Clock(variant(tiny_config(tmp_path, tmp_path), CPU), CPU)
    seconds, phases = clock.time(torch.randn(4, 3, 32, 32))
    assert sum(phases.values()) == pytest.approx(seconds)
    assert list(phases) == [
        "rest",
        "mask forward",
        "views",
        "student forward",
        "student backward",
        "student update",
        "frozen student forward",
        "frozen student backward",
        "mask backward",
        "mask update",
    ]


def test_features_of_patches_end_the_students_phase(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, reconstruction_weight=1.0, consistency_weight=1.0)
    clock = Clock(step_of_a_run(config, CPU), CPU)
    ended = []
    for _ in range(2):
        clock.time(torch.randn(4, 3, 32, 32))
        ended.append([name for name, _ in clock._marks])
    # A phase that is open at the end of a step would swallow the first views of the next one.
    assert ended[0] == ended[1]
    assert ended[0].count("frozen student forward") == 3  # clean, masked, patches


def test_a_teacher_has_a_phase_of_its_own(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, objective="byol")
    clock = Clock(step_of_a_run(config, CPU), CPU)
    clock.time(torch.randn(4, 3, 32, 32))
    ended = [name for name, _ in clock._marks]
    assert ended.count("teacher forward") == 2  # all views, and the clean one of the mask half
    assert ended.index("teacher forward") < ended.index("student forward")
    assert ended.count("frozen student forward") == 1


@pytest.mark.skipif(not os.access(CLEAR_REFS, os.W_OK), reason=f"needs Linux's {CLEAR_REFS}")
def test_the_high_water_of_memory_is_seen() -> None:
    memory = PeakMemory(CPU)
    torch.ones(2**24)  # 64 MiB, gone at once
    peak = memory.read()
    assert peak is not None
    assert peak == pytest.approx(2**26, rel=0.2)  # the kernel counts in batches of pages


def test_a_case_beside_its_baseline_and_an_earlier_measurement(tmp_path: Path) -> None:
    first = measure_throughput(speed_settings(baseline="naive"), lambda done, total: None)
    (case,) = first.cases
    (expected,) = cases(speed_settings())
    assert case.step is not None
    assert case.step.gflop_per_image == pytest.approx(
        StepCost.of(expected.config).flops / 1e9, rel=1e-3
    )
    assert case.step.gflop_per_image < case.floor_gflop_per_image
    assert case.estimated_memory_gib == StepCost.of(expected.config).peak_bytes(4) / 2**30
    plain = case.step.baselines["naive"]
    assert plain is not None
    assert case.step.over(plain).flops < 0.85
    assert case.step.images_per_second == pytest.approx(4 / case.step.step_seconds)

    saved = tmp_path / "first.json"
    saved.write_text(json.dumps(first.as_json()))
    assert read_earlier(saved) == [case]
    second = measure_throughput(speed_settings(against=saved), lambda done, total: None)
    (again,) = second.cases
    assert again.step is not None
    assert again.against == again.step.over(case.step)
    assert again.against.flops == 1
    other = measure_throughput(speed_settings(against=saved, depth=3), lambda done, total: None)
    assert other.cases[0].differs_from_earlier == {"model.depth": (2, 3)}
    assert "the nearest had other settings: model.depth 2 before, 3 here." in printed(other)
    assert "vit_tiny, adios, 32 px, N 3, K 0, batch 4" in throughput_summary(second)
    assert len(list(throughput_tables(first))) == 2


def test_a_case_out_of_memory_is_marked_and_the_others_stay() -> None:
    kept: list[Measurement] = []
    config = speed_settings(sweep=("batch_size=4,1000000000",))
    results = measure_throughput(config, lambda done, total: None, kept.append)
    first, second = results.cases
    assert first.step is not None
    assert second.step is None
    assert second.settings["batch_size_per_gpu"] == 10**9
    assert [len(so_far.cases) for so_far in kept] == [1, 2]
    text = printed(results)
    assert "2 out of memory" in text
    assert "batch 1000000000" in text


def test_a_baseline_out_of_memory_leaves_the_step_of_a_run() -> None:
    def too_large(config: TrainConfig, device: torch.device) -> StepVariant:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    results = measure(speed_settings(), CPU, {FAST: step_of_a_run, "naive": too_large})
    (case,) = results.cases
    assert case.step is not None
    assert case.step.images_per_second > 0
    assert case.step.baselines == {"naive": None}
    assert "1 naive out of memory" in printed(results)


def test_another_error_of_a_step_is_not_taken_for_missing_memory() -> None:
    def broken(config: TrainConfig, device: torch.device) -> StepVariant:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        measure(speed_settings(), CPU, {FAST: broken})


def printed(results: Measurement) -> str:
    with StringIO() as stream:
        console = Console(file=stream, width=200)
        console.print(*throughput_tables(results), throughput_summary(results))
        return stream.getvalue()


def test_the_command_prints_json_and_writes_it(tmp_path: Path) -> None:
    flags = [part for name, value in TINY_SPEED.items() for part in (f"--{name}", str(value))]
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
        speed_settings(device="cuda", baseline="all", profile=True), lambda done, total: None
    )
    step = results.cases[0].step
    assert step is not None
    assert set(step.baselines) == {"naive", "naive_checkpointing", "naive_empty_cache"}
    assert sum(step.phases.values()) == pytest.approx(step.step_seconds, rel=0.05)
    assert step.largest_batch is not None
    assert step.largest_batch > 4
