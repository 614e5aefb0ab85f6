"""The measured step as tables and a summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from adios_tme.benchmark.throughput.results import (
    CaseResult,
    Kernel,
    Measurement,
    Ratio,
    VariantResult,
)
from adios_tme.terminal import table

#: Settings whose values speak for themselves.
TOLD = {
    "arch",
    "mask_model_type",
    "img_size",
    "num_masks",
    "crops_per_mask",
    "batch_size_per_gpu",
    "precision",
    "attention",
}
#: Stands in place of what was not measured.
NO_MEMORY = "out of memory"
#: Of the table of speeds; the last two are ratios.
COLUMNS = ("Images/s", "Step s", "GFLOP\n/image", "MFU", "GiB", "Paper\nGiB", "Fits")


def throughput_tables(results: Measurement) -> Iterator[Table]:
    """Speed of every case and baseline, time by phase, and the kernels where they were listed."""
    yield _speeds(results)
    if not results.nothing_fits:
        yield _phases(results)
    for number, case in enumerate(results.cases, start=1):
        if case.step and case.step.kernels:
            yield _kernels(number, case.step.kernels)


def throughput_summary(results: Measurement) -> str:
    """What the cases are, and the machine that they were measured on."""
    lines = []
    for number, case in enumerate(results.cases, start=1):
        lines.append(f"{number}: {_name(case)}")
        if case.differs_from_earlier:
            lines.append(f"   {_differences(case.differs_from_earlier)}")
    machine = results.machine
    where = machine["device"] if machine["device"] != "cpu" else machine["processor"]
    lines.append(
        f"On {where}, {machine['threads']} threads; torch {machine['torch']}, "
        f"Python {machine['python']}, adios_tme {machine['adios_tme']}."
    )
    lines.append(
        "MFU: floor FLOPs over the time and the measured matrix peak. Paper GiB: the memory by the "
        "cost model. Speed and memory: this step over the one of the row."
    )
    return "\n".join(lines)


def _name(case: CaseResult) -> str:
    """The settings of a case in few words."""
    given = case.settings
    words = [
        given["arch"],
        given["mask_model_type"],
        f"{given['img_size']} px",
        f"N {given['num_masks']}",
        f"K {given['crops_per_mask']}",
        f"batch {given['batch_size_per_gpu']}",
        case.precision,
        case.attention_back_end,
    ]
    words += [f"{name} {value}" for name, value in given.items() if name not in TOLD]
    return ", ".join(str(word) for word in words)


def _differences(pairs: dict[str, tuple[Any, Any]]) -> str:
    changes = ", ".join(f"{name} {old} before, {new} here" for name, (old, new) in pairs.items())
    return f"No earlier case did the same work; the nearest had other settings: {changes}."


def _speeds(results: Measurement) -> Table:
    speeds = table("Training step", "Case", *COLUMNS, "Speed", "Memory")
    for number, case in enumerate(results.cases, start=1):
        for row in _rows(number, case):
            speeds.add_row(*row)
        speeds.add_section()
    return speeds


def _rows(number: int, case: CaseResult) -> Iterator[list[str]]:
    """The step of a run, its baselines, and the earlier case."""
    estimate, step = f"{case.estimated_memory_gib:.2f}", case.step
    if step is None:
        yield [f"{number} {NO_MEMORY}", *[""] * 5, estimate]
        return
    fits = "-" if step.largest_batch is None else str(step.largest_batch)
    yield [*_row(f"{number}", step), f"{step.mfu:.2f}", _memory(step), estimate, fits]
    for name, other in step.baselines.items():
        if other is None:
            yield [f"{number} {name} {NO_MEMORY}"]
        else:
            row = _row(f"{number} {name}", other)
            yield [*row, "", _memory(other), "", "", *_times(step.over(other))]
    if case.against:
        yield [f"{number} earlier", *[""] * len(COLUMNS), *_times(case.against)]


def _row(name: str, variant: VariantResult) -> list[str]:
    return [
        name,
        f"{variant.images_per_second:.2f}",
        f"{variant.step_seconds:.3f}",
        f"{variant.gflop_per_image:.1f}",
    ]


def _memory(variant: VariantResult) -> str:
    return "-" if variant.peak_memory_gib is None else f"{variant.peak_memory_gib:.2f}"


def _times(ratio: Ratio) -> list[str]:
    """Speed and memory of the case as factors."""
    return [f"{ratio.speed:.2f}x", "-" if ratio.memory is None else f"{ratio.memory:.2f}x"]


def _phases(results: Measurement) -> Table:
    variants = {
        f"{number} {name}": variant
        for number, case in enumerate(results.cases, start=1)
        if case.step
        for name, variant in {"adios_tme": case.step, **case.step.baselines}.items()
        if variant
    }
    phases = table("Seconds by phase", "Phase", *variants)
    for name in dict.fromkeys(name for variant in variants.values() for name in variant.phases):
        seconds = (variant.phases.get(name, 0) for variant in variants.values())
        phases.add_row(name, *(f"{each:.3f}" for each in seconds))
    return phases


def _kernels(number: int, kernels: tuple[Kernel, ...]) -> Table:
    columns = ("Kernel", "Calls", "Seconds", "Share")
    listed = table(f"Kernels of one step of case {number}", *columns)
    for kernel in kernels:
        figures = (str(kernel.calls), f"{kernel.seconds:.4f}", f"{kernel.share:.1%}")
        listed.add_row(kernel.name, *figures)
    return listed
