"""What is measured of the loader; the names of the fields are keys of the JSON that users parse.

Times are milliseconds a patch. What goes by CPU time is None where the system does not tell it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Patches:
    """What the patches are that were measured."""

    count: int
    archives: int
    mean_bytes: int
    first_size: tuple[int, int]
    """Height and width of the first in pixels."""
    suffix: str
    """Of the first's name."""


@dataclass(frozen=True)
class LoaderRatios:
    """How many times as fast one variant is as another."""

    one_worker_of_decode_ceiling: float
    one_worker_of_decode_ceiling_by_cpu: float | None
    one_worker_resizing_of_decode_ceiling: float
    one_worker_over_pillow_way: float
    all_workers_over_one: float


@dataclass(frozen=True)
class LoaderResult:
    """Whole variants by their speed, and stages by their cost."""

    images_per_second: dict[str, float]
    split_ms: dict[str, float]
    split_cpu_ms: dict[str, float | None]
    ratios: LoaderRatios


@dataclass(frozen=True)
class ArchiveResult:
    """One worker, and opening the archive for every patch, in an archive of one size."""

    members: int
    loader_ms: float
    open_per_patch_ms: float
    loader_over_open_per_patch: float
    loader_over_open_per_patch_by_cpu: float | None
    loader_over_smallest_archive: float | None
    """By CPU time."""


@dataclass(frozen=True)
class DecoderResult:
    """Pillow, and the decoder that a format has here."""

    format: str
    pillow_ms: float
    here_ms: float
    here_over_pillow: float


@dataclass(frozen=True)
class IndexingResult:
    """Listing the largest archive, beside the standard library's zipfile."""

    members: int
    members_per_second: float
    members_per_second_by_cpu: float | None
    zipfile_members_per_second: float
    over_zipfile: float


@dataclass(frozen=True)
class OrderResult:
    """The shuffled order of an epoch of so many patches."""

    patches: int
    microseconds_per_position: float


@dataclass(frozen=True)
class Measurement:
    """All parts, and what they were measured on."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    patches: Patches
    loader: LoaderResult
    archives: tuple[ArchiveResult, ...]
    decoders: tuple[DecoderResult, ...]
    indexing: IndexingResult
    order: OrderResult

    def as_json(self) -> dict[str, Any]:
        """The values that are written; those of the loader stand beside the other parts."""
        tree: dict[str, Any] = {}
        for name, part in asdict(self).items():
            tree |= part if name == "loader" else {name: part}
        return tree
