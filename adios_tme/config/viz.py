"""What is drawn, and where the picture goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from adios_tme.config.base import Config, Flag, Positional


class VizMasksConfig(Config):
    """Draw images beside their masks and a colour overlay of all masks."""

    checkpoint: Path
    """Checkpoint, run folder or exported folder whose mask model draws."""

    images: Path
    """Folder of images, one image, or a zip archive."""

    output: Path = Path("masks.png")
    """PNG or SVG file to write."""

    num_images: int = Field(default=8, ge=1)
    """Rows; images are taken evenly from all there are."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the mask model runs."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print what was drawn and what was left out as JSON."""


class VizCurvesConfig(Config):
    """Draw the losses, the mask coverage and the speed of one or several runs."""

    runs: Annotated[tuple[Path, ...], Positional()] = Field(min_length=1)
    """Output folders of runs; several are drawn over each other."""

    output: Path = Path("curves.png")
    """PNG or SVG file to write."""
