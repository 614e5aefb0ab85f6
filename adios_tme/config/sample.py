"""What ``adios-tme sample`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from adios_tme.config.base import Config, Positional


class SampleConfig(Config):
    """Write generated H&E: zip archives to train on, and labelled images to score masks on.

    The tissue is rendered by optical density with the exact outline of every nucleus. It is for
    trying things out and for tests; it is no substitute for slides.
    """

    out: Annotated[Path, Positional()]
    """New or empty folder; gets patches/ with archives and nuclei/ with images/ and labels/."""

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
