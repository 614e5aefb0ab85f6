"""How the loader's speed is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import Config, Flag, Positional, cores_at_hand, is_changed
from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import SlideTiling, check_overlap


class LoadingConfig(Config):
    """Measure how fast patches are read, decoded and copied to a batch, beside what they could be.

    Timing is interleaved in one run, so that ratios hold on a busy machine too: the loader beside
    its decoder alone, Pillow, and opening the archive for every patch (with Pillow's resize, which
    the loader leaves to the device), in archives of a hundred to a hundred thousand members that
    are written for the purpose. With --mpp, whole slides instead: the loader beside OpenSlide alone
    on the same tiles, and opening the slide for every tile.
    """

    data_path: Annotated[Path, Positional()]
    """Folder that holds the archives or images, or, with --mpp, the slides."""

    patches: PatchSelection = PatchSelection()

    slides: SlideTiling = SlideTiling()

    img_size: int = Field(default=224, gt=0)
    """Side in pixels to which patches are resized."""

    batch_size: int = Field(default=64, ge=1)
    """Images per batch; default: as in training."""

    num_workers: int = Field(default_factory=cores_at_hand, ge=1)
    """Processes of the measurement with several workers; default: the cores at hand."""

    num_samples: int = Field(default=256, ge=1)
    """Patches that are measured, spread over all."""

    num_rounds: int = Field(default=5, ge=1)
    """Times that each variant is timed, interleaved; medians are reported."""

    members: tuple[int, ...] = (100, 2_000, 20_000, 100_000)
    """Members of the archives in which a patch is looked for; different numbers above zero."""

    output: Path | None = None
    """File for the results as JSON; absent: none."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the results as JSON instead of tables."""

    @model_validator(mode="after")
    def _slides_fit(self) -> Self:
        check_overlap(self.slides, self.patches.patch_size_px)
        if self.slides.mpp is not None and is_changed(self, "members"):
            raise ValueError("members would be ignored: slides are measured with mpp. Drop one.")
        return self

    @field_validator("members")
    @classmethod
    def _archives_differ(cls, members: tuple[int, ...]) -> tuple[int, ...]:
        if not members or min(members) < 1 or len(set(members)) < len(members):
            raise ValueError(
                f"expected different numbers above zero, got {' '.join(map(str, members))}. "
                f"Give each size of archive once."
            )
        return members
