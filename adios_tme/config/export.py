"""What leaves a run, and in which format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adios_tme.config.base import Config, Positional


class ExportConfig(Config):
    """Write a network of a run in a format that other tools load.

    `timm` writes a folder with config.json, model.safetensors and a README (model card), which
    timm.create_model("local-dir:OUT", pretrained=True) loads without adios_tme. `dinov2` writes
    one file with the weights under DINOv2's names, as its trainer writes a teacher. `onnx` writes
    one file from pixels to masks or features, resizing and normalisation inside, and keeps it only
    if onnxruntime gives torch's numbers.
    """

    run: Annotated[Path, Positional()]
    """Output folder of a run, or one of its checkpoints."""

    out: Annotated[Path, Positional()]
    """Folder to write (timm), or file (dinov2, onnx; ending in .onnx)."""

    what: Literal["encoder", "mask"] = "encoder"
    """Which of the networks; the student's encoder is the one for features."""

    format: Literal["timm", "dinov2", "onnx"] = "timm"
    """Which tool's format; mask models leave as onnx."""

    licence: str | None = Field(default=None, min_length=1)
    """Licence of the weights for the model card, such as `apache-2.0` or `cc-by-nc-4.0`."""

    overwrite: bool = False
    """Write over an earlier export."""

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.what == "mask" and self.format != "onnx":
            raise ValueError(
                f"format={self.format} holds encoders, not mask models. "
                f"Use --format onnx, or --what encoder."
            )
        if self.licence is not None and self.format != "timm":
            raise ValueError(
                f"licence={self.licence} would be ignored: format={self.format} has no model card. "
                f"Drop it, or use --format timm."
            )
        return self
