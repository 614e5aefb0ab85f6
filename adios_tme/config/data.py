"""Which patches are read, and how they reach the device."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import (
    Basic,
    Config,
    Flag,
    MayBePath,
    OtherNames,
    Positional,
    Shapes,
    checked_pattern,
    cores_at_hand,
    expand_user,
    is_changed,
)
from adios_tme.config.slides import SlideTiling, check_overlap

#: Groups of `name_pattern`.
NAME_GROUPS = ("slide", "x", "y", "size", "mpp")
#: Settings that make two views of a patch differ.
AUGMENTATIONS = ("augment", "augment_colour", "augment_blur", "augment_crop")

Channels = tuple[float, float, float]


class PatchSelection(Config):
    """Which members of an archive count as patches, and what their names say."""

    patch_size_px: int = Field(default=448, gt=0)
    """Patches are the images with `_SIZE_` in their name (and not `_224_`, unless that is SIZE), as
    a size and not as a coordinate."""

    pattern: str | None = None
    """Regular expression that a member's name must contain instead; absent: the size rule."""

    all: bool = False
    """Take every image, whatever its name."""

    name_pattern: str | None = None
    """Regular expression with named groups out of slide, x, y, size and mpp, such as
    `(?P<slide>.+)_(?P<x>\\d+)_(?P<y>\\d+)`, that says how names are meant; with a size, it decides
    what is of --patch-size-px. Absent: common conventions are read."""

    @field_validator("pattern", "name_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return checked_pattern(pattern)

    @field_validator("name_pattern")
    @classmethod
    def _groups_are_known(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        groups = set(re.compile(pattern).groupindex)
        unknown = sorted(groups - set(NAME_GROUPS))
        if unknown or not groups:
            what = f"has the group {unknown[0]}" if unknown else "has no named group"
            raise ValueError(
                f"{pattern!r} {what}. Name groups out of {', '.join(NAME_GROUPS)}, "
                f"as in (?P<slide>...)."
            )
        if ("x" in groups) != ("y" in groups):
            raise ValueError(f"{pattern!r} has x or y alone. Give it a group for each, or none.")
        return pattern

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.all and self.pattern is not None:
            raise ValueError("all and pattern exclude each other. Give one of them.")
        return self


class DataRoot(NamedTuple):
    """One of the places that patches come from."""

    path: Path
    weight: float
    """How often each of its patches is shown, beside 1 for once an epoch."""

    @classmethod
    def parse(cls, text: str) -> DataRoot:
        """Read ``PATH`` or ``PATH:WEIGHT``; a path that exists may hold any colon."""
        path, colon, weight = text.rpartition(":")
        whole = cls(Path(text), 1.0)
        try:
            return whole if not colon or whole.path.exists() else cls(Path(path), float(weight))
        except (ValueError, OSError):  # the colon belongs to the path, or it may not be looked at
            return whole


class DataConfig(Config):
    """Patches and how they are read."""

    data_path: Annotated[
        tuple[str, ...], Basic(), OtherNames("data", "data_dir", "dataset"), MayBePath()
    ] = ()
    """Folder of zip archives, tars or images with H&E patches, or of whole slides (with --mpp); or
    one archive, or a dataset_index.pkl; required unless --demo is given. Given several times, the
    roots make one training set; PATH:0.3 shows each of its patches 0.3 times an epoch."""

    patches: PatchSelection = PatchSelection()

    slides: SlideTiling = SlideTiling()

    open_slides: int = Field(default=32, ge=1)
    """Whole slides that each worker keeps open; opening one takes as long as reading two tiles."""

    img_size: Annotated[
        int, Shapes("weights"), Basic(), OtherNames("image_size", "input_size", "resolution")
    ] = Field(default=224, gt=0)
    """Side in pixels to which every patch is resized."""

    mean: Channels = (0.6816, 0.5640, 0.7232)
    """Mean of the red, green and blue channel (0 to 1) that normalisation subtracts."""

    std: Channels = (0.1617, 0.1714, 0.1389)
    """Standard deviation of the three channels (0 to 1) that normalisation divides by."""

    augment: Literal["none", "geometric", "stain", "full"] = "none"
    """Augmentation on the device: flips and quarter turns, HED stain jitter, or both."""

    augment_colour: float = Field(default=0.0, ge=0, le=1)
    """Augmentation on the device: brightness, contrast and saturation are each multiplied by a
    factor between 1 - this and 1 + this."""

    augment_blur: float = Field(default=0.0, ge=0, le=1)
    """Augmentation on the device: share of the images that are blurred, by a Gaussian of up to 1 %
    of their side."""

    augment_crop: float = Field(default=1.0, gt=0, le=1)
    """Augmentation on the device: smallest share of its area that a random crop shows of an image,
    resized to --img-size; 1 shows the whole."""

    views: Literal["one", "two"] = "one"
    """Whether masked views are compared with the same augmentation of their patch, or with another
    one, as in the original."""

    batch_size_per_gpu: Annotated[
        int, Shapes("step"), Basic(), OtherNames("batch_size", "batch")
    ] = Field(default=64, ge=1)
    """Images per step on each process."""

    num_workers: int = Field(default_factory=lambda: min(8, cores_at_hand()), ge=0)
    """Processes that read patches, per training process; default: 8, or the cores at hand."""

    read_timeout_seconds: float = Field(default=300, gt=0)
    """Time that a worker may be at one patch before the run stops, in seconds; the log warns after
    ten."""

    resize_on: Literal["auto", "worker", "device"] = "auto"
    """Where patches are resized; auto: on the device with CUDA, so that workers only decode, else
    in the workers."""

    shuffle_block: int = Field(default=1, ge=1)
    """Neighbouring patches that are shuffled as one block, for fewer seeks; 1 shuffles fully."""

    max_corrupt_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of the patches seen (0 to 1) that may be unreadable before the run stops."""

    @model_validator(mode="after")
    def _slides_fit(self) -> Self:
        check_overlap(self.slides, self.patches.patch_size_px)
        return self

    @model_validator(mode="after")
    def _two_views_differ(self) -> Self:
        if self.views == "two" and not any(is_changed(self, name) for name in AUGMENTATIONS):
            raise ValueError(
                "views=two would show the same image twice: nothing is augmented. "
                "Add --augment geometric or another augmentation, or use --views one."
            )
        return self

    @field_validator("data_path", mode="before")
    @classmethod
    def _as_roots(cls, paths: object) -> object:
        if paths is None:
            return ()
        given = paths if isinstance(paths, (list, tuple)) else [paths]
        return tuple(
            expand_user(str(path)) if isinstance(path, (str, Path)) else path for path in given
        )

    @field_validator("data_path")
    @classmethod
    def _roots_are_sound(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        roots = [DataRoot.parse(path) for path in paths]
        for root in roots:
            if not 0 < root.weight < math.inf:
                raise ValueError(f"{root.path} has the weight {root.weight}. Give one above zero.")
        if len({root.path.absolute() for root in roots}) < len(roots):
            raise ValueError("a folder is given twice. Give it once, with a weight if need be.")
        return paths

    @property
    def roots(self) -> tuple[DataRoot, ...]:
        """The places that patches come from, with their weights."""
        return tuple(map(DataRoot.parse, self.data_path))

    @field_validator("std")
    @classmethod
    def _positive(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError(f"std must be above zero in every channel, got {std}.")
        return std


class IndexConfig(Config):
    """Build or update the index of a folder of zip archives, tars, images or whole slides.

    The index holds the place of every patch, so that reading one costs a single read at a known
    offset. A second run rescans only archives whose size or time changed.
    """

    data_path: Annotated[Path, Positional()]
    """Folder that holds the archives, images or slides, one archive, or a dataset_index.pkl that
    names them."""

    patches: PatchSelection = PatchSelection()

    slides: SlideTiling = SlideTiling()

    previews: Path | None = None
    """Folder for a picture of each slide with its tissue and tiles, and a contact sheet of all."""

    output: Path | None = None
    """Where the index goes; absent: dataset_index.safetensors inside DATA_PATH, or NAME.safetensors
    beside one archive. A list of --format pickle ends in .pkl."""

    format: Literal["safetensors", "pickle"] = "safetensors"
    """File format; pickle is the list that older trainers read (dataset_index.pkl)."""

    rebuild: bool = False
    """Scan every archive again, also those that have not changed."""

    stats: bool = False
    """Measure a random sample: mean and standard deviation of the channels, sizes, patches per
    slide, and the magnification where names state it."""

    num_samples: int = Field(default=1000, ge=1)
    """Patches that --stats reads."""

    contact_sheet: Path | None = None
    """PNG of random patches side by side, to see what will be trained on."""

    num_drawn: int = Field(default=64, ge=1)
    """Patches on the contact sheet."""

    verify: bool = False
    """Read and decode every patch, list what is damaged, and leave with exit code 1 if any is."""

    num_workers: int = Field(default_factory=cores_at_hand, ge=1)
    """Processes that scan, measure and verify; default: the cores at hand."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print what was found as JSON instead of tables."""

    @model_validator(mode="after")
    def _slides_fit(self) -> Self:
        check_overlap(self.slides, self.patches.patch_size_px)
        if self.previews is not None and self.slides.mpp is None:
            raise ValueError("previews would be ignored: they show slides. Add --mpp, or drop it.")
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name, needed, reader in (
            ("num_samples", "stats", self.stats),
            ("num_drawn", "contact_sheet", self.contact_sheet),
        ):
            if is_changed(self, name) and not reader:
                raise ValueError(
                    f"{name}={getattr(self, name)} would be ignored: {needed} is not given. "
                    f"Add --{needed.replace('_', '-')}, or drop it."
                )
        return self
