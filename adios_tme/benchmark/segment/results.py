"""What is measured of segmenting; the names of the fields are keys of the JSON that users parse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SegmentRatios:
    """How many times as fast segmenting is."""

    segment_of_model: float
    """Beside the mask model alone on as many windows."""
    segment_of_model_by_cpu: float | None
    """The same by the CPU time of the process, on a CPU."""


@dataclass(frozen=True)
class SegmentResult:
    """Two ways, interleaved, and what they were measured on."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    channel: int
    """That is taken for nuclei, from 1 on."""
    threshold: float
    microns_per_pixel: float
    """At which the model looks."""
    img_size: int
    """Of the model: the side of a window in pixels."""
    num_blocks: int
    """Of one timing."""
    num_blocks_of_slide: int
    num_windows: int
    """Of one timing."""
    num_nuclei: int
    """Of one timing."""
    windows_per_second: dict[str, float]
    nuclei_per_second: float
    ratios: SegmentRatios
    stage_seconds: dict[str, float]
    """What each stage takes where none runs beside another, once."""
    peak_memory_bytes: int | None
    """Resident in a process that segments as much once; None where the system does not tell."""

    def as_json(self) -> dict[str, Any]:
        """The values that are written."""
        return asdict(self)
