"""How the speed of the training step is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from adios_tme.config.base import Config, Flag
from adios_tme.config.load import merge
from adios_tme.config.model import MaskConfig, StudentConfig
from adios_tme.config.run import ComputeConfig


class ThroughputConfig(Config):
    """Measure the training step: images per second, time by phase, share of the machine's peak.

    Random images are on the device already, so that no loader takes part, and crops are taken only
    where they are asked for. FLOPs are counted on a step that is really done; their floor is what
    the settings ask for at the least (see the page on cost in the documentation). Every ratio is of
    steps whose timing was interleaved in one process.
    """

    batch_size: int = Field(default=16, ge=2)
    """Images per step."""

    img_size: int = Field(default=224, gt=0)
    """Side of the images in pixels."""

    sweep: tuple[str, ...] = ()
    """Values of a setting to go through, as name=value,value; give it again for more settings, and
    every combination is measured, or marked where the memory does not do for it. Example: --sweep
    batch_size=16,32 --sweep compile=on,off."""

    baseline: Literal["naive", "naive_checkpointing", "naive_empty_cache", "all"] | None = None
    """Plain step to measure beside it: two eager halves that share nothing; the same with gradient
    checkpointing; the same with the cache of CUDA's allocator emptied after every step; or all of
    these. Absent: none."""

    steps: int = Field(default=3, ge=1)
    """Timed steps of each variant; the median counts."""

    warmup_steps: int = Field(default=2, ge=2)
    """Steps of each variant before them, which compile and allocate; memory is read then."""

    against: Path | None = None
    """JSON of an earlier measurement; ratios to its cases that did the same work are shown."""

    output: Path | None = None
    """File for the results as JSON, written after every case; absent: none."""

    profile: bool = False
    """List the kernels of one step by the time they take."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the results as JSON instead of tables."""

    model: StudentConfig = StudentConfig()
    mask: MaskConfig = MaskConfig(crops_per_mask=0)
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="before")
    @classmethod
    def _without_crops(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Unlike a run, a measurement takes crops only where they are asked for."""
        return merge({"mask": {"crops_per_mask": 0}}, given)
