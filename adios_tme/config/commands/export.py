"""What leaves a run, and in which format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import Config, Positional

Format = Literal["timm", "dinov2", "folder", "onnx"]

#: Formats of each network, the one that is written by default first.
FORMATS: dict[str, tuple[Format, ...]] = {
    "encoder": ("timm", "dinov2", "onnx"),
    "mask": ("folder", "onnx"),
}
#: Those that are folders, with a model card.
FOLDERS: tuple[Format, ...] = ("timm", "folder")
#: What hubs take for the name of a repository.
REPOSITORY = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*/)?(?!.*(?:--|\.\.))[A-Za-z0-9][A-Za-z0-9_.-]*"
)


class ExportConfig(Config):
    """Write a network of a run in a format that other tools load.

    Of the encoder, `timm` writes a folder with config.json, model.safetensors and a README (model
    card), which timm.create_model("local-dir:OUT", pretrained=True) loads without adios_tme;
    `dinov2` writes one file with the weights under DINOv2's names, as its trainer writes a teacher.

    Of the mask model, `folder` writes the same three files, which
    adios_tme.MaskGenerator.from_pretrained("OUT") loads: images in, masks out.

    Of both, `onnx` writes one file from pixels to masks or features, resizing and normalisation
    inside, and keeps it only if onnxruntime gives torch's numbers.
    """

    run: Annotated[Path, Positional()]
    """Output folder of a run, or one of its checkpoints."""

    out: Annotated[Path, Positional()]
    """Folder to write (timm, folder), or file (dinov2, onnx; ending in .onnx)."""

    what: Literal["encoder", "mask"] = "encoder"
    """Which of the networks: the student's encoder gives features, the mask model gives masks."""

    format: Format = Field(default_factory=lambda given: FORMATS[given["what"]][0])
    """Which tool's format; default: timm for the encoder, folder for the mask model."""

    licence: str | None = Field(default=None, min_length=1)
    """Licence of the weights for the model card, such as `apache-2.0` or `cc-by-nc-4.0`."""

    overwrite: bool = False
    """Write over an earlier export."""

    push: str | None = None
    """Repository of the Hugging Face hub, NAME or ORGANISATION/NAME, that the folder is uploaded to
    once it is written; made where there is none. The token is that of HF_TOKEN or hf auth login,
    another hub is HF_ENDPOINT."""

    private: bool = False
    """Make a new repository private; one that exists stays as it is."""

    @field_validator("push")
    @classmethod
    def _names_a_repository(cls, name: str | None) -> str | None:
        if name is not None and not REPOSITORY.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name of a repository. Give NAME or ORGANISATION/NAME, of letters, "
                f"digits and single dots, dashes and underscores."
            )
        return name

    @model_validator(mode="after")
    def _the_network_has_that_format(self) -> Self:
        formats = FORMATS[self.what]
        if self.format not in formats:
            raise ValueError(
                f"format={self.format} is not one of what={self.what}. "
                f"Use --format {' or '.join(formats)}, or change --what."
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.format not in FOLDERS:
            reasons = {"licence": "has no model card", "push": "is one file and no folder"}
            for name, reason in reasons.items():
                if (value := getattr(self, name)) is not None:
                    raise ValueError(
                        f"{name}={value} would be ignored: format={self.format} {reason}. "
                        f"Drop it, or use --format {FORMATS[self.what][0]}."
                    )
        if self.private and self.push is None:
            raise ValueError(
                "private would be ignored: nothing is pushed. Drop it, or add --push REPOSITORY."
            )
        return self
