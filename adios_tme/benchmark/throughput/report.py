"""The measured step as tables and in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

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


def throughput_tables(results: dict[str, Any]) -> Iterator[Table]:
    """Speed of every case and baseline, time by phase, and the kernels where they were listed."""
    yield _speeds(results)
    if not all(case["out_of_memory"] for case in results["cases"]):
        yield _phases(results)
    for number, case in enumerate(results["cases"], start=1):
        if case.get("kernels"):
            yield _kernels(number, case)


def throughput_summary(results: dict[str, Any]) -> str:
    """What the cases are, and the machine that they were measured on."""
    lines = []
    for number, case in enumerate(results["cases"], start=1):
        lines.append(f"{number}: {_name(case)}")
        if "differs_from_earlier" in case:
            lines.append(f"   {_differences(case['differs_from_earlier'])}")
    machine = results["machine"]
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


def _name(case: dict[str, Any]) -> str:
    """The settings of a case in few words."""
    given = case["settings"]
    words = [
        given["arch"],
        given["mask_model_type"],
        f"{given['img_size']} px",
        f"N {given['num_masks']}",
        f"K {given['crops_per_mask']}",
        f"batch {given['batch_size_per_gpu']}",
        case["precision"],
        case["attention_back_end"],
    ]
    words += [f"{name} {value}" for name, value in given.items() if name not in TOLD]
    return ", ".join(str(word) for word in words)


def _differences(pairs: dict[str, list[Any]]) -> str:
    changes = ", ".join(f"{name} {old} before, {new} here" for name, (old, new) in pairs.items())
    return f"No earlier case did the same work; the nearest had other settings: {changes}."


def _speeds(results: dict[str, Any]) -> Table:
    table = Table(title="Training step")
    table.add_column("Case", no_wrap=True)
    columns = ("Images/s", "Step s", "GFLOP/image", "MFU", "GiB", "Paper GiB", "Fits")
    for column in (*columns, "Speed", "Memory"):
        table.add_column(column, justify="right")
    for number, case in enumerate(results["cases"], start=1):
        estimate = f"{case['estimated_memory_gib']:.2f}"
        if case["out_of_memory"]:
            table.add_row(f"{number} {NO_MEMORY}", "", "", "", "", "", estimate)
            table.add_section()
            continue
        largest = case["largest_batch"]
        fits = "-" if largest is None else str(largest)
        memory = (_memory(case), estimate)
        table.add_row(*_row(f"{number}", case), f"{case['mfu']:.2f}", *memory, fits)
        for name, other in case["baselines"].items():
            table.add_row(*_baseline(f"{number} {name}", other))
        if "against" in case:
            table.add_row(f"{number} earlier", *[""] * len(columns), *_times(case["against"]))
        table.add_section()
    return table


def _baseline(name: str, variant: dict[str, Any]) -> list[str]:
    if variant["out_of_memory"]:
        return [f"{name} {NO_MEMORY}"]
    return [*_row(name, variant), "", _memory(variant), "", "", *_times(variant["ratio"])]


def _row(name: str, variant: dict[str, Any]) -> list[str]:
    return [
        name,
        f"{variant['images_per_second']:.2f}",
        f"{variant['step_seconds']:.3f}",
        f"{variant['gflop_per_image']:.1f}",
    ]


def _memory(variant: dict[str, Any]) -> str:
    memory = variant["peak_memory_gib"]
    return "-" if memory is None else f"{memory:.2f}"


def _times(ratio: dict[str, float | None]) -> list[str]:
    """Speed and memory of the case as factors."""
    memory = ratio["memory"]
    return [f"{ratio['speed']:.2f}x", "-" if memory is None else f"{memory:.2f}x"]


def _phases(results: dict[str, Any]) -> Table:
    table = Table(title="Seconds by phase")
    table.add_column("Phase")
    columns: list[dict[str, float]] = []
    for number, case in enumerate(results["cases"], start=1):
        for name, variant in {"adios_tme": case, **case.get("baselines", {})}.items():
            if variant["out_of_memory"]:
                continue
            table.add_column(f"{number} {name}", justify="right")
            columns.append(variant["phases"])
    for phase in dict.fromkeys(phase for phases in columns for phase in phases):
        table.add_row(phase, *(f"{phases.get(phase, 0):.3f}" for phases in columns))
    return table


def _kernels(number: int, case: dict[str, Any]) -> Table:
    table = Table(title=f"Kernels of one step of case {number}")
    table.add_column("Kernel")
    for column in ("Calls", "Seconds", "Share"):
        table.add_column(column, justify="right")
    for kernel in case["kernels"]:
        table.add_row(
            kernel["name"],
            str(kernel["calls"]),
            f"{kernel['seconds']:.4f}",
            f"{kernel['share']:.1%}",
        )
    return table
