"""What is measured of the training step, and the JSON that it is written to and read from.

Users parse that JSON: a name of a field is its key. A field that comes later needs a default, so
that earlier files can still be compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

#: All that JSON says of what did not fit the memory.
OUT_OF_MEMORY = {"out_of_memory": True}


@dataclass(frozen=True)
class Kernel:
    """One kind of kernel in a step."""

    name: str
    calls: int
    seconds: float
    share: float
    """Of the seconds of all kernels."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast, as much arithmetic and as much memory."""

    speed: float
    flops: float
    memory: float | None
    """None where the system does not tell."""


@dataclass(frozen=True)
class VariantResult:
    """What a step variant reaches."""

    images_per_second: float
    step_seconds: float
    """The median."""
    step_seconds_range: tuple[float, float]
    """The fastest and the slowest."""
    phases: dict[str, float]
    """Seconds by phase, of the step whose time is the median."""
    gflop_per_image: float
    """As counted."""
    gflop_per_second: float
    peak_memory_gib: float | None
    """None where the system does not tell."""

    def over(self, other: VariantResult) -> Ratio:
        """How much of everything this one has beside another."""
        memory, others = self.peak_memory_gib, other.peak_memory_gib
        return Ratio(
            speed=self.images_per_second / other.images_per_second,
            flops=self.gflop_per_image / other.gflop_per_image,
            memory=memory / others if memory and others else None,
        )


@dataclass(frozen=True)
class RunStepResult(VariantResult):
    """What the step of a run reaches, and the baselines beside it."""

    matrix_peak_gflop_per_second: float
    mfu: float
    """Floor FLOPs over the time and the matrix peak."""
    student_mfu: float
    """The same of the student's phases alone."""
    largest_batch: int | None
    """None where it cannot be told."""
    baselines: dict[str, VariantResult | None]
    """By name; None for one that did not fit the memory."""
    kernels: tuple[Kernel, ...] | None
    """The longest first; None where no profile was asked for."""


@dataclass(frozen=True)
class CaseResult:
    """One combination of settings, and what its step reaches."""

    settings: dict[str, Any]
    """See `adios_tme.benchmark.throughput.cases.Case`."""
    work: dict[str, Any]
    """Likewise."""
    precision: str
    attention_back_end: str
    floor_gflop_per_image: float
    estimated_memory_gib: float
    step: RunStepResult | None = None
    """None where it did not fit the memory. JSON has its fields beside those of the case."""
    against: Ratio | None = None
    """To the earlier case of the same work, if there is one."""
    differs_from_earlier: dict[str, tuple[Any, Any]] | None = None
    """Else earlier and present values by the setting's path, of the nearest earlier case."""


@dataclass(frozen=True)
class Measurement:
    """All cases, and the machine that they were measured on."""

    machine: dict[str, Any]
    cases: tuple[CaseResult, ...] = ()

    @property
    def nothing_fits(self) -> bool:
        """Whether no case fits the memory."""
        return not any(case.step for case in self.cases)

    def as_json(self) -> dict[str, Any]:
        """The values that are written."""
        return {"machine": self.machine, "cases": [_case_as_json(case) for case in self.cases]}


def _case_as_json(case: CaseResult) -> dict[str, Any]:
    tree = asdict(case)
    del tree["step"]
    comparison = {name: tree.pop(name) for name in ("against", "differs_from_earlier")}
    tree |= _step_as_json(case.step) if case.step else OUT_OF_MEMORY
    return tree | {name: value for name, value in comparison.items() if value is not None}


def _step_as_json(step: RunStepResult) -> dict[str, Any]:
    baselines = {
        name: {"out_of_memory": False, **asdict(other), "ratio": asdict(step.over(other))}
        if other
        else OUT_OF_MEMORY
        for name, other in step.baselines.items()
    }
    return {"out_of_memory": False, **asdict(step), "baselines": baselines}


def case_of_json(tree: Mapping[str, Any]) -> CaseResult:
    """A measured case as it was before it was written.

    Raises:
        ValidationError: If it lacks a field, or one is of the wrong type.
    """
    baselines = {
        name: None if other["out_of_memory"] else other
        for name, other in tree.get("baselines", {}).items()
    }
    return _CASE.validate_python({**tree, "step": {**tree, "baselines": baselines}})


_CASE = TypeAdapter(CaseResult)
