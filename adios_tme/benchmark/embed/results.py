"""What is measured of embedding; the names of the fields are keys of the JSON that users parse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class EmbedRatios:
    """How many times as fast one way is as another."""

    embed_over_timm_loop: float
    embed_of_model: float
    """Beside the encoder alone on random images."""
    embed_of_model_by_cpu: float | None
    """The same by the CPU time of the process with the encoder, on a CPU: what the loader's
    processes and others take of the cores does not count."""
    embed_of_loader: float
    """Beside the loader alone."""
    embed_of_both_in_turn: float
    """Beside loader and encoder one after the other, as where they share the same cores."""
    loader_over_model: float


@dataclass(frozen=True)
class EmbedResult:
    """Four ways, interleaved, and what they were measured on."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    num_patches: int
    """Of one timing."""
    images_per_second: dict[str, float]
    ratios: EmbedRatios
    limit: Literal["model", "loader"]
    """The slower of the two when each is alone."""
    largest_difference: float
    """Between a feature of embed and of the plain loop, on the same patches."""
    largest_feature: float
    """Largest absolute value of a feature, to compare that with."""

    def as_json(self) -> dict[str, Any]:
        """The values that are written."""
        return asdict(self)
