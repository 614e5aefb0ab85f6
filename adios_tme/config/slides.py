"""How whole slides are cut into tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import (
    Config,
    MayBePath,
    Positional,
    cores_at_hand,
    expand_user,
    is_changed,
)

#: Microns per pixel that a slide can have; anything else is a unit mistaken for another.
LEAST_MPP, MOST_MPP = 0.05, 20.0
#: Rules for tissue that are no file.
TISSUE_RULES = ("otsu", "hsv", "none")


class SlideReading(Config):
    """Which tiles of whole slides are read, and at which scale."""

    mpp: float | None = Field(default=None, ge=LEAST_MPP, le=MOST_MPP)
    """Microns per pixel of the tiles, such as 0.25 (about 40x) or 0.5 (20x); tiles are
    --patch-size-px wide at that scale, whatever the levels of a slide. Absent: slides are not
    read."""

    mpp_csv: Path | None = None
    """CSV with the columns wsi and mpp: the microns per pixel of slides that do not state them, or
    state them wrongly. What stands there wins over the slide."""

    tissue: Annotated[str, MayBePath(*TISSUE_RULES)] = "otsu"
    """What counts as tissue: otsu (saturation above Otsu's threshold), hsv (purple to pink), none
    (take every tile), or regions drawn in QuPath as GeoJSON: a file for one slide, or a folder with
    SLIDE.geojson for each."""

    min_tissue: float = Field(default=0.5, ge=0, le=1)
    """Share of a tile (0 to 1) that must be tissue."""

    coordinates: Path | None = None
    """Folder of HDF5 files that say where tiles are, instead of looking for tissue: those of
    TRIDENT (SLIDE_patches.h5) or CLAM (SLIDE.h5). Needs h5py."""

    icc: bool = False
    """Convert colours to sRGB where a slide has a colour profile; else they are read as stored."""

    @field_validator("tissue")
    @classmethod
    def _begins_at_home(cls, tissue: str) -> str:
        return expand_user(tissue)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        changed = [name for name in type(self).model_fields if is_changed(self, name)]
        if self.mpp is None and changed:
            raise ValueError(
                f"{changed[0]}={getattr(self, changed[0])} would be ignored: slides are read with "
                f"mpp alone. Add --mpp, such as --mpp 0.25, or drop it."
            )
        for name in ("tissue", "min_tissue", "overlap"):
            if self.coordinates is not None and name in changed:
                raise ValueError(
                    f"{name}={getattr(self, name)} would be ignored: coordinates says where tiles "
                    f"are. Drop one of them."
                )
        if self.tissue == "none" and "min_tissue" in changed:
            raise ValueError(
                f"min_tissue={self.min_tissue} would be ignored: tissue=none takes every tile. "
                f"Drop one of them."
            )
        return self


class SlideTiling(SlideReading):
    """How whole slides are cut into tiles."""

    overlap: int = Field(default=0, ge=0)
    """Pixels that neighbouring tiles share, at the scale of the tiles."""


class SlideTiles(SlideReading):
    """Which tiles of whole slides stand for images."""

    patch_size_px: int = Field(default=448, gt=0)
    """Side of the tiles in pixels at that scale; the one of training shows what was trained on."""


def tiling_of(reading: SlideReading, overlap: int = 0) -> SlideTiling:
    """How slides are cut of which tiles are read."""
    named = {name: getattr(reading, name) for name in SlideReading.model_fields}
    return SlideTiling(**named, overlap=overlap)


def check_overlap(slides: SlideTiling, patch_size_px: int) -> None:
    """Raise ValueError if tiles would not move on."""
    if slides.overlap >= patch_size_px:
        raise ValueError(
            f"overlap={slides.overlap} is not below patch_size_px={patch_size_px}. Lower --overlap."
        )


class TileConfig(Config):
    """Cut whole slides to patches: a stored zip archive a slide, ready to train on.

    Names state the slide, the place in level 0 and the scale, as in SLIDE_448_x0_y896_mpp0.25.jpg.
    A second run goes on where the first one stopped. Training does not need it: train and index
    read slides as they are, with --mpp.
    """

    slides_path: Annotated[Path, Positional()]
    """Folder that holds the slides, searched with its subfolders."""

    out: Annotated[Path, Positional()]
    """Folder for the archives, slides.jsonl and previews."""

    slides: SlideTiling = SlideTiling()

    patch_size_px: int = Field(default=448, gt=0)
    """Side of the tiles in pixels."""

    format: Literal["jpg", "png"] = "jpg"
    """File format of the tiles; png loses nothing and is several times as large."""

    quality: int = Field(default=90, ge=1, le=100)
    """Quality of JPEG files (1 to 100)."""

    previews: bool = True
    """Draw each slide with its tissue and tiles, and a contact sheet of all."""

    write_coordinates: bool = False
    """Write the places of tiles in TRIDENT's HDF5 as well, to OUT/coordinates. Needs h5py."""

    dry_run: bool = False
    """Count tiles, and estimate bytes from a sample of them; write nothing."""

    num_workers: int = Field(default_factory=cores_at_hand, ge=1)
    """Processes; default: the cores at hand."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_overlap(self.slides, self.patch_size_px)
        if self.slides.mpp is None:
            raise ValueError("mpp is missing. Give the scale of the tiles, such as --mpp 0.25.")
        if self.format == "png" and is_changed(self, "quality"):
            raise ValueError(
                f"quality={self.quality} would be ignored: PNG keeps every pixel. Drop it."
            )
        return self
