"""How mask models are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adios_tme.config.base import Config, Flag, Positional, cores_at_hand


class NucleiConfig(Config):
    """Score the masks of every checkpoint of a run as nuclei, beside classical methods.

    Oracle: the best channel of each image at threshold 0.5, chosen by looking at the labels. Fixed:
    one channel and threshold for all images, chosen on a calibration part and scored on the rest.
    No labels: the same, chosen without a label, by the haematoxylin and Otsu's threshold; this one
    says what can be had where nobody has labels.
    """

    run: Annotated[Path, Positional()]
    """Output folder of a run, or one checkpoint."""

    labels: Path | None = None
    """Folder with images/ and labels/ of the same names, labels as 16-bit instance ids."""

    pannuke: Path | None = None
    """Folder of PanNuke's release, with Fold 1 and so on."""

    monuseg: Path | None = None
    """Folder of MoNuSeg's release, training or test."""

    output: Path = Path("nuclei_benchmark")
    """Folder for nuclei_benchmark.json, .csv, .png and .svg."""

    calibration: str = "0.2"
    """Where channel and threshold are chosen: a share of the images (0 to 1), or a part of the data
    set by its name, such as a fold."""

    view: Literal["auto", "whole", "windows"] = "auto"
    """How the model looks: at the whole image shrunk to its size, or through overlapping windows of
    its size; auto: windows where an image is more than twice as large."""

    scale: float | None = Field(default=None, gt=0)
    """Microns per pixel at which the model was trained; images are brought to it and looked at
    through windows. Absent: as they are."""

    label_scale: float | None = Field(default=None, gt=0)
    """Microns per pixel of the labelled images; known for PanNuke and MoNuSeg (0.25). Masks are
    cleaned at this scale; absent: as at 0.25."""

    seed: int = Field(default=0, ge=0)
    """Seed of the calibration part, the k-means and the bootstrap."""

    num_workers: int = Field(default_factory=cores_at_hand, ge=1)
    """Processes that score; default: the cores at hand."""

    profile: bool = False
    """Print where the time and the memory went."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the results as JSON instead of a table."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the mask model runs."""

    @model_validator(mode="after")
    def _one_data_set(self) -> Self:
        given = [name for name in ("labels", "pannuke", "monuseg") if getattr(self, name)]
        if len(given) != 1:
            what = "none is given" if not given else f"{' and '.join(given)} are given"
            raise ValueError(
                f"one data set is scored at a time, {what}. "
                f"Use one of --labels, --pannuke and --monuseg."
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.scale is not None and self.view == "whole":
            raise ValueError(
                f"view=whole would be ignored: scale={self.scale} looks through windows. "
                f"Drop --view, or --scale."
            )
        return self
