"""Speed of the training step: what is measured of each case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from adios_tme.benchmark.machine import PeakMemory, is_out_of_memory, matrix_peak, total_memory
from adios_tme.benchmark.throughput.cases import Case, cases
from adios_tme.benchmark.throughput.cost import StepCost
from adios_tme.benchmark.throughput.counting import count_flops
from adios_tme.benchmark.throughput.earlier import compare, read_earlier
from adios_tme.benchmark.throughput.phases import (
    STUDENTS_PHASES,
    BuildVariant,
    Clock,
    Lap,
    StepVariant,
)
from adios_tme.benchmark.throughput.results import (
    CaseResult,
    Kernel,
    Measurement,
    RunStepResult,
    VariantResult,
)
from adios_tme.config.commands.throughput import ThroughputConfig
from adios_tme.config.data import DataConfig
from adios_tme.config.train import TrainConfig
from adios_tme.environment import describe_machine
from adios_tme.models.resolve import resolve

FAST = "adios_tme"
#: Images of the step whose FLOPs are counted; per image they do not depend on it.
COUNTED_IMAGES = 2
#: Kernels in the profile.
NUM_KERNELS = 20
#: Share of what is left by which the largest batch stays below a full device.
MARGIN = 0.95

OnProgress = Callable[[int, int], None]
OnResults = Callable[[Measurement], None]


def measure(
    config: ThroughputConfig,
    device: torch.device,
    variants: Mapping[str, BuildVariant],
    on_progress: OnProgress = lambda done, total: None,
    on_results: OnResults = lambda results: None,
) -> Measurement:
    """Measure every case.

    Args:
        config: What to measure.
        device: Where.
        variants: By name the steps; the first is that of a run, the others are baselines.
        on_progress: Told the cases that are done and all.
        on_results: Given the results so far after every case.
    """
    all_cases = cases(config)
    earlier = read_earlier(config.against) if config.against else []
    results = Measurement(describe_machine(device))
    for done, case in enumerate(all_cases):
        on_progress(done, len(all_cases))
        result = compare(_measure_case(case, config, device, variants), earlier)
        results = replace(results, cases=(*results.cases, result))
        on_results(results)
    on_progress(len(all_cases), len(all_cases))
    return results


def _measure_case(
    case: Case,
    config: ThroughputConfig,
    device: torch.device,
    variants: Mapping[str, BuildVariant],
) -> CaseResult:
    resolved = resolve(case.config, device)
    cost = StepCost.of(case.config, resolved)
    batch_size = case.config.data.batch_size_per_gpu
    result = CaseResult(
        settings=case.settings,
        work=case.work,
        precision=str(resolved.dtype).removeprefix("torch."),
        attention_back_end=resolved.attention,
        floor_gflop_per_image=cost.floor_flops / 1e9,
        estimated_memory_gib=cost.peak_bytes(batch_size, resolved.dtype.itemsize) / 2**30,
    )
    try:
        return replace(result, step=_measure_step(cost, config, variants))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return result


def _measure_step(
    cost: StepCost, config: ThroughputConfig, variants: Mapping[str, BuildVariant]
) -> RunStepResult:
    """What the step of a run reaches, and its baselines."""
    case, device, dtype = cost.config, cost.resolved.device, cost.resolved.dtype
    batch_size = case.data.batch_size_per_gpu
    peak = matrix_peak(device, dtype)
    timings = _time_interleaved(case, config, device, variants)
    peak = max(peak, matrix_peak(device, dtype))  # the machine may have been busy before
    results = {
        name: _variant_result(case, device, build, timings[name]) if name in timings else None
        for name, build in variants.items()
    }
    fast = results.pop(FAST)
    assert fast is not None  # a step of a run that does not fit the memory has raised before
    students_seconds = sum(fast.phases.get(name, 0.0) for name in STUDENTS_PHASES)
    return RunStepResult(
        **vars(fast),
        matrix_peak_gflop_per_second=peak / 1e9,
        mfu=cost.floor_flops * batch_size / fast.step_seconds / peak,
        student_mfu=cost.students_part * batch_size / students_seconds / peak,
        largest_batch=_largest_batch(case, device, variants[FAST], timings[FAST].memory),
        baselines=results,
        kernels=_kernels(case, device, variants[FAST]) if config.profile else None,
    )


@dataclass(frozen=True)
class _Timing:
    median: Lap
    fastest: float
    """Seconds."""
    slowest: float
    memory: int | None
    """Bytes; None where the system does not tell."""


def _time_interleaved(
    case: TrainConfig,
    config: ThroughputConfig,
    device: torch.device,
    variants: Mapping[str, BuildVariant],
) -> dict[str, _Timing]:
    """Steps of all variants one after the other, so that what disturbs the machine disturbs all.

    Memory is what a variant adds to that of the ones before it while it warms up. A baseline for
    which none is left is not among the timings.
    """
    images = _images(case.data, device)
    clocks, memories = {}, {}
    for name, build in variants.items():
        memory = PeakMemory(device)
        try:
            clocks[name] = _warm_clock(build(case, device), images, config.warmup_steps)
        except RuntimeError as error:
            if name == FAST or not is_out_of_memory(error):
                raise
        else:
            memories[name] = memory.read()
    laps: dict[str, list[Lap]] = {name: [] for name in clocks}
    for _ in range(config.steps):
        for name, clock in clocks.items():
            laps[name].append(clock.time(images))
    return {name: _timing(of_variant, memories[name]) for name, of_variant in laps.items()}


def _warm_clock(variant: StepVariant, images: Tensor, num_steps: int) -> Clock:
    clock = Clock(variant, images.device)
    for _ in range(num_steps):
        clock.time(images)
    return clock


def _timing(laps: list[Lap], memory: int | None) -> _Timing:
    laps = sorted(laps, key=lambda lap: lap.seconds)
    return _Timing(laps[(len(laps) - 1) // 2], laps[0].seconds, laps[-1].seconds, memory)


def _variant_result(
    case: TrainConfig,
    device: torch.device,
    build: BuildVariant,
    timing: _Timing,
) -> VariantResult:
    flops, seconds = _counted_flops(case, device, build), timing.median.seconds
    batch_size = case.data.batch_size_per_gpu
    return VariantResult(
        images_per_second=batch_size / seconds,
        step_seconds=seconds,
        step_seconds_range=(timing.fastest, timing.slowest),
        phases=timing.median.phases,
        gflop_per_image=flops / 1e9,
        gflop_per_second=flops * batch_size / seconds / 1e9,
        peak_memory_gib=timing.memory / 2**30 if timing.memory is not None else None,
    )


def _counted_flops(case: TrainConfig, device: torch.device, build: BuildVariant) -> float:
    """FLOPs per image of a step that is done for the purpose, where nothing hides them."""
    compute = case.compute.model_copy(update={"attention": "sdpa", "compile": "off"})
    data = case.data.model_copy(update={"batch_size_per_gpu": COUNTED_IMAGES})
    plain = case.model_copy(update={"compute": compute, "data": data})
    variant, images = build(plain, device), _images(plain.data, device)
    return count_flops(lambda: variant.step(images)) / COUNTED_IMAGES


def _peak_memory(build: BuildVariant, case: TrainConfig, device: torch.device) -> int | None:
    """Most bytes that steps need in all, the networks and optimisers included."""
    images = _images(case.data, device)
    memory = PeakMemory(device)
    variant = build(case, device)
    for _ in range(2):  # optimisers make their state in the first
        variant.step(images)
    return memory.read()


def _largest_batch(
    case: TrainConfig, device: torch.device, build: BuildVariant, memory: int | None
) -> int | None:
    """The batch that would fill the device, by a line through the memory of two batches.

    On CUDA a batch is tried and made smaller until it fits.
    """
    total = total_memory(device)
    if memory is None or total is None:
        return None
    size = case.data.batch_size_per_gpu
    smaller = max(2, size // 2) if size > 2 else 2 * size
    other = _peak_memory(build, _with_batch(case, smaller), device)
    if other is None:
        return None
    per_image = (memory - other) / (size - smaller)
    if per_image <= 0:  # pages that are given back late hide what small batches need
        return None
    largest = max(0, int((total * MARGIN - (memory - per_image * size)) / per_image))
    while device.type == "cuda" and largest >= 2 and not _fits(case, device, build, largest):
        largest = int(largest * MARGIN)
    return largest


def _fits(case: TrainConfig, device: torch.device, build: BuildVariant, batch_size: int) -> bool:
    try:
        _peak_memory(build, _with_batch(case, batch_size), device)
    except torch.OutOfMemoryError:
        return False
    return True


def _with_batch(case: TrainConfig, batch_size: int) -> TrainConfig:
    data = case.data.model_copy(update={"batch_size_per_gpu": batch_size})
    return case.model_copy(update={"data": data})


def _images(data: DataConfig, device: torch.device) -> Tensor:
    side = data.img_size
    return torch.randn(data.batch_size_per_gpu, 3, side, side, device=device)


def _kernels(case: TrainConfig, device: torch.device, build: BuildVariant) -> tuple[Kernel, ...]:
    """What one step after the first spends its time on, the longest first."""
    variant, images = build(case, device), _images(case.data, device)
    variant.step(images)
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as trace:
        variant.step(images)
    spent = [
        (event.self_device_time_total if on_cuda else event.self_cpu_time_total, event)
        for event in trace.key_averages()
    ]
    total = sum(microseconds for microseconds, _ in spent)
    longest = sorted(spent, key=lambda entry: -entry[0])[:NUM_KERNELS]
    return tuple(
        Kernel(event.key, event.count, time / 1e6, time / total) for time, event in longest
    )
