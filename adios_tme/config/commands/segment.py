"""Nuclei and regions of slides, images and patches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adios_tme.config.base import Config, Flag, Positional, is_changed
from adios_tme.config.data import PatchSelection
from adios_tme.config.slides import LEAST_MPP, MOST_MPP, SlideTiling

OmeContent = Literal["masks", "labels"]


class SegmentConfig(Config):
    """Find nuclei by one mask of a trained mask model, and write them for QuPath.

    Each slide, image or set of patches gets NAME.geojson, which QuPath opens, and NAME.csv; OUTPUT
    gets summary.csv. Pixels are those of the slide at full resolution, or of the image. The same
    command again goes on where it was stopped: what is finished is skipped.
    """

    run: Annotated[Path, Positional()]
    """Output folder of a run (its newest checkpoint), a checkpoint, or an exported mask model."""

    input: Annotated[Path, Positional()]
    """An image, a zip or tar of patches, a folder of images or of such archives, a
    dataset_index.pkl, or with --mpp a slide or a folder of slides."""

    output: Path = Path("segmentation")
    """Folder for the files; it holds those of one mask model with one set of settings."""

    scale: float | None = Field(default=None, ge=LEAST_MPP, le=MOST_MPP)
    """Microns per pixel at which the model was trained; images are brought to it. Absent: they are
    looked at as they are. It is that of the training patches, times their side in pixels, divided
    by --img-size."""

    input_scale: float | None = Field(default=None, ge=LEAST_MPP, le=MOST_MPP)
    """Microns per pixel of the images; absent: what their names state, as in mpp0.25."""

    level0_scale: float | None = Field(default=None, ge=LEAST_MPP, le=MOST_MPP)
    """Microns per pixel of the slides at full resolution, where the names of patches state x and y
    in their pixels; absent: the same as that of the patches."""

    mpp: float | None = Field(default=None, ge=LEAST_MPP, le=MOST_MPP)
    """Read whole slides, and show them to the model at so many microns per pixel; what --scale is
    for images."""

    mpp_csv: Path | None = None
    """CSV with the columns wsi and mpp: the microns per pixel of slides that do not state them, or
    state them wrongly."""

    tissue: str = "otsu"
    """What of a slide is looked at: otsu, hsv, none (all of it), or regions drawn in QuPath as
    GeoJSON: a file for one slide, or a folder with SLIDE.geojson for each."""

    pattern: str | None = None
    """Regular expression that the names of images must contain; absent: all images are taken."""

    name_pattern: str | None = None
    """Regular expression with named groups out of slide, x, y, size and mpp that says how names are
    meant; absent: common conventions are read."""

    channel: int | None = Field(default=None, ge=1)
    """Which mask is that of nuclei, from 1 on; absent: the one that goes with the haematoxylin
    most, over some of the images."""

    threshold: float | None = Field(default=None, gt=0, lt=1)
    """From which value of the mask on (0 to 1) a pixel is nucleus; absent: Otsu's threshold over
    some of the images."""

    regions: bool = False
    """Write the regions of the other masks as well, as annotations: where each is the highest."""

    gzip: bool = False
    """Write NAME.geojson.gz instead, a tenth as large."""

    ome_tiff: OmeContent | None = None
    """Write NAME.ome.tiff as well, a pyramid at the scale at which the model looks: all masks, from
    0 to 255, or labels, the nuclei by their numbers in NAME.csv; absent: none."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the mask model runs."""

    @property
    def slides(self) -> SlideTiling:
        """How slides are read."""
        return SlideTiling(mpp=self.mpp, mpp_csv=self.mpp_csv, tissue=self.tissue)

    @property
    def patches(self) -> PatchSelection:
        """Which images are taken."""
        return PatchSelection(
            all=self.pattern is None, pattern=self.pattern, name_pattern=self.name_pattern
        )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        of_slides, of_images = ("mpp_csv", "tissue"), (
            "scale", "input_scale", "level0_scale", "pattern", "name_pattern",
        )  # fmt: skip
        for name in of_slides if self.mpp is None else of_images:
            if is_changed(self, name):
                why = "with mpp alone. Add --mpp" if self.mpp is None else "by mpp. Drop it"
                raise ValueError(
                    f"{name}={getattr(self, name)} would be ignored: slides are read {why}."
                )
        _ = self.slides, self.patches  # their own rules hold here, too
        return self


class SegmentSpeedConfig(Config):
    """Measure how fast `adios-tme segment` is, beside its mask model alone.

    Two ways are timed in turn in one run, so that ratios hold on a busy machine too: blocks of a
    slide as `segment` does them, from reading to files (which go to a temporary folder); and the
    mask model alone on as many windows, in batches of the same sizes, of random images. Once more,
    the time of each stage is taken, and the memory of a process that does nothing else.
    """

    run: Annotated[Path, Positional()]
    """What `adios-tme segment` takes: a run, a checkpoint, or an exported mask model."""

    slide: Annotated[Path, Positional()]
    """A whole slide."""

    mpp: float = Field(ge=LEAST_MPP, le=MOST_MPP)
    """Microns per pixel at which the slide is shown to the model."""

    mpp_csv: Path | None = None
    """CSV with the columns wsi and mpp, for a slide that does not state its microns per pixel."""

    tissue: str = "otsu"
    """What of the slide is looked at: otsu, hsv, none (all of it), or regions as GeoJSON."""

    channel: int | None = Field(default=None, ge=1)
    """Which mask is that of nuclei, from 1 on; absent: as `segment` chooses."""

    threshold: float | None = Field(default=None, gt=0, lt=1)
    """From which value of the mask on (0 to 1) a pixel is nucleus; absent: as `segment` chooses."""

    num_blocks: int = Field(default=2, ge=1)
    """Blocks of each timing, spread over the tissue; a block is what `segment` has in memory at a
    time, up to about 2,000 pixels wide."""

    num_rounds: int = Field(default=3, ge=1)
    """Times that each way is timed, interleaved; medians are reported."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the mask model runs."""

    output: Path | None = None
    """File for the results as JSON; absent: none."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the results as JSON instead of tables."""

    @property
    def segment(self) -> SegmentConfig:
        """The settings of the command that is measured; nothing is written where they say."""
        given = self.model_dump(exclude={"slide", "num_blocks", "num_rounds", "json_output"})
        return SegmentConfig(**given | {"input": self.slide, "output": Path()})
