"""What ``adios-tme sample`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from adios_tme.config.base import Config, Positional, is_changed


class SampleConfig(Config):
    """Write generated H&E: zip archives to train on, and labelled images to score masks on.

    The tissue is rendered by optical density with the exact outline of every nucleus. It is for
    trying things out and for tests; it is no substitute for slides.
    """

    out: Annotated[Path, Positional()]
    """New or empty folder; gets patches/ with archives and nuclei/ with images/ and labels/, or
    slides/ with a slide."""

    num_slides: int = Field(default=8, ge=1)
    """Archives."""

    patches_per_slide: int = Field(default=64, ge=1)
    """Patches in each archive."""

    size_px: int = Field(default=448, ge=32)
    """Side of the images in pixels; nuclei stay 8 to 16 px wide."""

    num_labelled: int = Field(default=32, ge=1)
    """Labelled images; none of them is in an archive."""

    seed: int = Field(default=0, ge=0)
    """Equal seeds write equal files."""

    slide: bool = False
    """Write a whole slide instead: a TIFF pyramid of tissue on glass at 0.25 microns per pixel, and
    a table of its nuclei."""

    slide_size_px: int = Field(default=4096, ge=1024, le=200_000, multiple_of=16)
    """Side of the slide in pixels, a multiple of 16; 20000 takes minutes."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        of_patches = ("num_slides", "patches_per_slide", "size_px", "num_labelled")
        for name in of_patches if self.slide else ("slide_size_px",):
            if is_changed(self, name):
                advice = "Drop one of them." if self.slide else "Add --slide, or drop it."
                what = "slide writes no patches" if self.slide else "slide is not given"
                raise ValueError(f"{name}={getattr(self, name)} would be ignored: {what}. {advice}")
        return self
