"""Features of patches: of which encoder, from which patches, and in which files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import (
    Config,
    Flag,
    MayBePath,
    Positional,
    cores_at_hand,
    expand_user,
)
from adios_tme.config.data import PatchSelection
from adios_tme.config.launch import ClusterConfig, LaunchConfig
from adios_tme.config.model import TIMM
from adios_tme.config.slides import SlideReading, SlideTiling, check_overlap, tiling_of

Pool = Literal["cls", "mean", "cls_mean"]
Precision = Literal["fp32", "bf16", "fp16"]
FeatureFormat = Literal["hdf5", "safetensors"]


class FeatureConfig(Config):
    """The encoder, and what is taken of it."""

    pool: Pool = "cls"
    """What of an image becomes its feature: the class token, the mean over the tokens of its
    patches (without registers), or both, one after the other. A network without a class token has
    the mean alone."""

    precision: Precision = "fp32"
    """Number format of the encoder's arithmetic. With fp32 the numbers are the same to 1e-5
    whatever the batch, workers and processes; bf16 and fp16 are several times as fast on a GPU and
    differ in the third digit."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where the encoder runs; auto: CUDA when there is one."""


class EmbedConfig(Config):
    """Write the features of every patch of a data set, one file a slide, as MIL tools read them.

    Patches, or with --mpp tiles of whole slides, are indexed, resized and normalised as in
    training. Files lie as TRIDENT lays them out,
    OUTPUT/20x_256px_0px_overlap/features_NAME/SLIDE.h5, with `features` (N, D) and `coords` (N, 2);
    what names and flags do not tell of scale and size is absent from folder and attributes.

    The same command again goes on where it was stopped: slides that are finished are skipped. A
    patch that cannot be read has no row, and corrupt.jsonl in OUTPUT names it.
    """

    run: Annotated[str, Positional(), MayBePath(TIMM)]
    """Output folder of a run (its newest checkpoint), a checkpoint, a folder that timm reads, as
    `export` writes it, or timm:NAME for pretrained weights that are in timm's cache."""

    data_path: Path
    """Folder of zip archives, tars or images with H&E patches, one archive, a dataset_index.pkl,
    or with --mpp a slide or a folder of slides."""

    output: Path = Path("features")
    """Folder for the features; it holds those of one encoder with one set of settings."""

    format: FeatureFormat = "hdf5"
    """Kind of file, one a slide; hdf5 needs the extra `hdf5`."""

    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the features in the files; float16 takes half the room."""

    no_coords: bool = False
    """Write no coordinates, for patches whose names have none; the files hold their names
    instead."""

    encoder_name: str | None = None
    """Name of the encoder in folders and attributes; absent: that of the run's folder, the
    checkpoint or the timm model."""

    target_magnification: float | None = Field(default=None, gt=0)
    """Magnification of the patches, such as 20, where names do not state it."""

    level0_magnification: float | None = Field(default=None, gt=0)
    """Magnification of the slides at full resolution, such as 40; tools that draw on slides need
    it."""

    overlap: int | None = Field(default=None, ge=0)
    """Pixels by which neighbouring patches overlap, where names do not state it; of slides, how
    many neighbouring tiles share, at the scale of the tiles (absent: none)."""

    batch_size: int = Field(default=64, ge=1)
    """Patches per step of each process."""

    num_workers: int = Field(default_factory=lambda: min(8, cores_at_hand()), ge=0)
    """Processes that read patches, per process with an encoder; default: 8, or the cores at
    hand."""

    read_timeout_seconds: float = Field(default=300, gt=0)
    """Time that a worker may be at one patch before the command stops, in seconds."""

    max_corrupt_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of the patches seen (0 to 1) that may be unreadable before the command stops."""

    features: FeatureConfig = FeatureConfig()
    patches: PatchSelection = PatchSelection()
    slides: SlideReading = SlideReading()
    launch: LaunchConfig = LaunchConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def tiling(self) -> SlideTiling:
        """How slides are cut into tiles."""
        return tiling_of(self.slides, 0 if self.slides.mpp is None else self.overlap or 0)

    @model_validator(mode="after")
    def _slides_fit(self) -> Self:
        check_overlap(self.tiling, self.patches.patch_size_px)
        return self

    @field_validator("run", mode="before")
    @classmethod
    def _may_be_a_path(cls, given: object) -> object:
        return expand_user(str(given)) if isinstance(given, (str, Path)) else given

    @field_validator("encoder_name")
    @classmethod
    def _names_a_folder(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
            raise ValueError(
                f"expected letters, digits, dots, dashes and underscores, got {name!r}."
            )
        return name


class EmbedSpeedConfig(Config):
    """Measure how fast `adios-tme embed` is, beside a plain timm loop and the encoder alone.

    Four ways are timed in turn in one run, so that ratios hold on a busy machine too: `embed`; a
    loop over torch's DataLoader with zipfile (of slides, OpenSlide), Pillow and timm's own
    transforms on the same files with the same encoder in timm; the encoder alone on random images;
    the loader alone. The slower of the last two is what limits `embed`.
    """

    run: Annotated[str, Positional()]
    """What `adios-tme embed` takes: a run, a checkpoint, a folder that timm reads, or timm:NAME."""

    data_path: Path
    """Folder that holds the archives or images; with --mpp a slide or a folder of slides."""

    features: FeatureConfig = FeatureConfig()
    patches: PatchSelection = PatchSelection()
    slides: SlideReading = SlideReading()

    batch_size: int = Field(default=64, ge=1)
    """Patches per step."""

    num_workers: int = Field(default_factory=lambda: min(8, cores_at_hand()), ge=1)
    """Processes that read patches; default: 8, or the cores at hand."""

    num_samples: int = Field(default=512, ge=1)
    """Patches of each timing, spread over all; on a fast GPU take ten thousand or more."""

    num_rounds: int = Field(default=5, ge=1)
    """Times that each way is timed, interleaved; medians are reported."""

    output: Path | None = None
    """File for the results as JSON; absent: none."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the results as JSON instead of tables."""

    @field_validator("run", mode="before")
    @classmethod
    def _may_be_a_path(cls, given: object) -> object:
        return expand_user(str(given)) if isinstance(given, (str, Path)) else given
