"""How mask models are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from adios_tme.config.base import Config, Flag, Positional


class NucleiConfig(Config):
    """Score the masks of every checkpoint of a run as nuclei, beside classical methods.

    Oracle: the best channel of each image at threshold 0.5, chosen by looking at the labels. Fixed:
    one channel and threshold for all images, chosen on a calibration part and scored on the rest;
    only this one can be had without labels for each image.
    """

    run: Annotated[Path, Positional()]
    """Output folder of a run, or one checkpoint."""

    labels: Path
    """Folder with images/ and labels/ of the same names, labels as 16-bit instance ids."""

    output: Path = Path("nuclei_benchmark")
    """Folder for nuclei_benchmark.json, .csv and .png."""

    calibration: float = Field(default=0.2, gt=0, lt=1)
    """Share of the images (0 to 1) on which channel and threshold are chosen."""

    seed: int = Field(default=0, ge=0)
    """Seed of the calibration part."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the results as JSON instead of a table."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the mask model runs."""
