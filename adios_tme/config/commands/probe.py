"""How encoders are probed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import (
    Config,
    Flag,
    Positional,
    checked_pattern,
    cores_at_hand,
    is_changed,
)
from adios_tme.config.commands.embed import Pool
from adios_tme.config.model import TIMM
from adios_tme.config.slides import SlideTiles


class ProbeConfig(Config):
    """Tell how good an encoder is: kNN and logistic regression on its frozen features.

    Every checkpoint of a run is probed on folders of labelled patches, beside what needs no
    training: an encoder with random weights, and colour statistics. Scores are balanced accuracy,
    macro F1 and AUROC with bootstrap intervals. Features that were written earlier are probed, too:
    HDF5 files, with --labels and without a run. Needs scikit-learn, which the extra `probe` brings.
    """

    run: Annotated[Path | None, Positional()] = None
    """Output folder of a run, or one checkpoint; absent where only HDF5 features are probed."""

    train: tuple[Path, ...] = Field(min_length=1)
    """Folder with a folder of images (or archives; with --mpp, slides) for each class, or HDF5
    features (a file or a folder of one file a slide) with --labels. Give it again for more sets;
    each is reported apart."""

    test: tuple[Path, ...] = ()
    """Test part of the set, with the same classes; one for each --train, in their order. Absent:
    a share of the training folder, held out by slide."""

    labels: Path | None = None
    """CSV with the labels of HDF5 features: columns label, slide (the file's name without suffix),
    and x and y where patches have labels of their own."""

    slides: SlideTiles = SlideTiles()

    output: Path = Path("probe")
    """Folder for probe.json, .csv, .png and .svg."""

    split_by: Literal["auto", "slide", "patch"] = "auto"
    """What is held out together; auto: slides where names or folders tell them, else patches,
    which is said. Patches of one slide in both parts make scores too good."""

    slide_pattern: str | None = None
    """Regular expression that finds the slide in an image's path below its class folder: its group
    `slide`, or all that it matches. Absent: common conventions, and folders or archives inside the
    class folder."""

    test_fraction: float = Field(default=0.3, gt=0, lt=1)
    """Share of each class that is held out where no --test is given (0 to 1)."""

    k: int = Field(default=20, ge=1)
    """Neighbours that vote in kNN; all of them where the training part is smaller."""

    knn_temperature: float = Field(default=0.07, gt=0)
    """Temperature T of kNN: a neighbour's vote is exp(cosine similarity / T)."""

    pool: Pool = "cls"
    """Features of an image: the class token, the mean of the patch tokens, or both in a row."""

    rival: tuple[str, ...] = ()
    """Encoder to probe beside the run's: timm:NAME with weights on this machine, or
    timm:local-dir:FOLDER. Give it again for more."""

    seed: int = Field(default=0, ge=0)
    """Seed of the split, the folds, the random encoder and the bootstrap."""

    batch_size: int = Field(default=64, ge=1)
    """Images in one forward pass."""

    num_workers: int = Field(default_factory=cores_at_hand, ge=1)
    """Threads that read and decode images; default: the cores at hand."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where encoders run."""

    json_output: Annotated[bool, Flag("json")] = False
    """Print the results as JSON instead of tables."""

    @field_validator("slide_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return checked_pattern(pattern)

    @field_validator("rival")
    @classmethod
    def _are_encoders(cls, rivals: tuple[str, ...]) -> tuple[str, ...]:
        for name in rivals:
            if not name.removeprefix(TIMM) or not name.startswith(TIMM):
                raise ValueError(
                    f"{name!r} is no encoder that can be had. "
                    f"Give timm:NAME, such as timm:vit_small_patch16_224.dino."
                )
        return tuple(dict.fromkeys(rivals))

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.test and len(self.test) != len(self.train):
            raise ValueError(
                f"{len(self.train)} --train and {len(self.test)} --test are given. "
                f"Give a --test for each --train, in their order, or none."
            )
        if len({path.absolute() for path in self.train}) < len(self.train):
            raise ValueError("a folder is given twice as --train. Give it once.")
        for train, test in zip(self.train, self.test, strict=False):
            if train.absolute() == test.absolute():
                raise ValueError(
                    f"{train} is the training and the test part. "
                    f"Give another --test, or drop it: a part is held out then."
                )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.test and is_changed(self, "test_fraction"):
            raise ValueError(
                f"test_fraction={self.test_fraction} would be ignored: test is given. "
                f"Drop one of them."
            )
        if self.test and is_changed(self, "split_by"):
            raise ValueError(
                f"split_by={self.split_by} would be ignored: test is given. Drop one of them."
            )
        if self.run is None and self.rival:
            raise ValueError(
                f"rival={' '.join(self.rival)} would be ignored: there is no run, and features of "
                f"a file have no images. Give RUN and a folder of classes, or drop it."
            )
        return self
