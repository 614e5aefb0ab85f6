"""What is drawn, and where the picture goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adios_tme.config.base import Config, Flag, Positional, is_changed
from adios_tme.config.slides import SlideTiles


class VizMasksConfig(Config):
    """Draw images beside their masks and a colour overlay of all masks."""

    checkpoint: Path
    """Checkpoint, run folder or exported folder whose mask model draws."""

    images: Path
    """Folder of images, or of archives or folders of them; one zip or tar, or one image; with --mpp
    a slide or a folder of slides, whose tiles are taken."""

    slides: SlideTiles = SlideTiles()

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


class VizFeaturesConfig(Config):
    """Draw what an encoder sees: patch tokens as colours, and where its class token attends.

    A row is an image, its patch tokens (the first three principal components of all images as red,
    green and blue, so that a colour means the same in every row), and the attention of the class
    token in the last block, head by head. On request, the images most like it, and a map of all
    images in a second file.
    """

    checkpoint: Annotated[Path, Positional()]
    """Run folder, or one checkpoint, whose student encodes."""

    images: Path
    """Folder of images, or of archives or folders of them; one zip or tar, or one image; with --mpp
    a slide or a folder of slides, whose tiles are taken."""

    slides: SlideTiles = SlideTiles()

    output: Path = Path("features.png")
    """PNG or SVG file to write; the map goes beside it, as features_map.png."""

    num_images: int = Field(default=8, ge=1)
    """Rows; images are taken evenly from all there are."""

    foreground: bool = False
    """Colour the foreground alone: the darker side of the first principal component. Its tokens
    have a basis of their own, so that the background does not use up a colour."""

    neighbours: int = Field(default=0, ge=0)
    """Nearest neighbours of each image to draw, by the cosine of class tokens; 0 draws none."""

    map: Literal["tsne", "umap"] | None = None
    """Draw a map of the class tokens by t-SNE (extra `probe`) or UMAP (extra `umap`); absent: no
    map."""

    colour_by: Literal["slide", "class"] = "slide"
    """What colours the points of the map: the slide, by archive, folder and name, or the class:
    the folder right below --images."""

    gallery: int = Field(default=500, ge=2)
    """Images among which neighbours are sought, and that the map shows; taken evenly from all."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the encoder runs."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print what was drawn and what was left out as JSON."""

    @property
    def map_path(self) -> Path:
        """File of the map."""
        return self.output.with_stem(f"{self.output.stem}_map")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name, needed in (("colour_by", "map"), ("gallery", "map or neighbours")):
            used = self.map or (self.neighbours and name == "gallery")
            if not used and is_changed(self, name):
                raise ValueError(
                    f"{name}={getattr(self, name)} would be ignored without {needed}. "
                    f"Drop it, or ask for that."
                )
        return self


class VizReportConfig(Config):
    """Tell of a run in one HTML file that needs no network; of several, compare them.

    Curves that zoom, the masks over iterations, diagnostics in words, scores beside baselines,
    data, settings, and how to load the model. The file may be sent to anyone: all is inside.
    """

    runs: Annotated[tuple[Path, ...], Positional()] = Field(min_length=1)
    """Output folders of runs, also of one that is still going; several are compared."""

    output: Path | None = None
    """HTML file to write; absent: report.html in the run's folder, or here for several runs."""

    images: Path | None = None
    """Folder of images or archives, one archive, or one image, to show patch tokens and attention
    on; with --mpp a slide or a folder of slides."""

    slides: SlideTiles = SlideTiles()

    nuclei: tuple[Path, ...] = ()
    """nuclei_benchmark.json of each run, in their order; absent: the one in a run's folder or in
    its folder nuclei/, if there is one."""

    probe: tuple[Path, ...] = ()
    """probe.json of each run, in their order; absent: the one in a run's folder or in its folder
    probe/, if there is one."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the encoder runs for --images."""

    @model_validator(mode="after")
    def _results_fit_runs(self) -> Self:
        for name, files in (("nuclei", self.nuclei), ("probe", self.probe)):
            if files and len(files) != len(self.runs):
                raise ValueError(
                    f"{len(files)} --{name} and {len(self.runs)} runs are given. "
                    f"Give one for each run, in their order, or none."
                )
        for name, value in (("device", self.device), ("mpp", self.slides.mpp)):
            if self.images is None and value not in ("auto", None):
                raise ValueError(
                    f"{name}={value} would be ignored without images. Drop it, or give --images."
                )
        return self
