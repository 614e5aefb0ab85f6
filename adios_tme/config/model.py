"""Sizes of the student encoder and of the mask model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from adios_tme.config.base import Basic, Config, OtherNames, Shapes, is_changed


class Arch(NamedTuple):
    """Width, depth and heads of a named ViT."""

    embed_dim: int
    depth: int
    num_heads: int


ARCHITECTURES = {
    "vit_tiny": Arch(192, 12, 3),
    "vit_small": Arch(384, 12, 6),
    "vit_base": Arch(768, 12, 12),
    "vit_large": Arch(1024, 24, 16),
}
HEAD_WIDTH = 64
#: Before the name of an architecture that is one of timm's.
TIMM = "timm:"


def is_timm(arch: str) -> bool:
    """Whether an architecture is one of timm's, whose sizes are its own."""
    return arch.startswith(TIMM)


def _sizes(given: Mapping[str, Any]) -> Arch:
    """Of the architecture in settings; one that is unknown or timm's has none."""
    return ARCHITECTURES.get(given.get("arch", ""), Arch(0, 0, 0))


def check_heads(embed_dim: int, num_heads: int) -> None:
    """Raise if the heads do not share the width evenly.

    Raises:
        ValueError: With the head counts near ``num_heads`` that would do.
    """
    if embed_dim % num_heads == 0:
        return
    divisors = [heads for heads in range(1, embed_dim + 1) if embed_dim % heads == 0]
    below = max(heads for heads in divisors if heads < num_heads)
    above = min((heads for heads in divisors if heads > num_heads), default=embed_dim)
    raise ValueError(
        f"num_heads={num_heads} does not divide embed_dim={embed_dim}. "
        f"Use --num-heads {below} or {above}, or change --embed-dim."
    )


class StudentConfig(Config):
    """The encoder that learns, and the head that it is trained through."""

    arch: Annotated[
        str,
        Shapes("weights"),
        Basic(),
        OtherNames("model", "encoder", "backbone"),
    ] = "vit_base"
    """Encoder: vit_tiny, vit_small, vit_base or vit_large, which set width, depth and heads where
    they are not given; or timm:NAME, a network of timm that pools an image to one vector, such as
    timm:resnet18."""

    patch_size: Annotated[int, Shapes("weights")] = Field(default=16, gt=0)
    """Side in pixels of the squares that become tokens."""

    embed_dim: Annotated[int, Shapes("weights")] = Field(
        default_factory=lambda given: _sizes(given).embed_dim, ge=0
    )
    """Width of the encoder; default: by arch 192, 384, 768 or 1024."""

    depth: Annotated[int, Shapes("weights")] = Field(
        default_factory=lambda given: _sizes(given).depth, ge=0
    )
    """Number of transformer blocks; default: by arch 12, 12, 12 or 24."""

    num_heads: Annotated[int, Shapes("weights")] = Field(
        default_factory=lambda given: _sizes(given).num_heads, ge=0
    )
    """Attention heads per block; default: by arch 3, 6, 12 or 16."""

    drop_path_rate: Annotated[float, Shapes("step")] = Field(default=0.4, ge=0, lt=1)
    """Stochastic depth: chance that an image skips the last block, rising linearly with depth; 0,
    which leaves the network its own, where it is timm's and nothing is given."""

    num_register_tokens: Annotated[int, Shapes("weights")] = Field(default=4, ge=0)
    """Extra tokens without a place in the image (Darcet et al. 2023)."""

    tme_hidden_dim: Annotated[int, Shapes("weights")] = Field(default=2048, gt=0)
    """Width of the hidden layers of the head."""

    tme_output_dim: Annotated[int, Shapes("weights")] = Field(default=256, gt=0)
    """Width of the embedding that the contrastive loss compares."""

    tme_layers: Annotated[int, Shapes("weights")] = Field(default=3, ge=1)
    """Linear layers in the head."""

    @model_validator(mode="before")
    @classmethod
    def _timm_skips_nothing_unasked(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and is_timm(str(given.get("arch"))):
            return {"drop_path_rate": 0.0, **given}
        return given

    @field_validator("arch")
    @classmethod
    def _is_known(cls, arch: str) -> str:
        if arch not in ARCHITECTURES and (not is_timm(arch) or arch == TIMM):
            raise ValueError(
                f"expected one of {', '.join(map(repr, ARCHITECTURES))} or timm:NAME, got {arch!r}."
            )
        return arch

    @model_validator(mode="after")
    def _sizes_are_those_of_a_vit(self) -> Self:
        for name in Arch._fields:
            size = getattr(self, name)
            if is_timm(self.arch) and size:
                raise ValueError(
                    f"{name}={size} would be ignored: arch={self.arch} has its own. Drop it."
                )
            if not is_timm(self.arch) and not size:
                raise ValueError(f"{name}=0 is too small. Give one above zero.")
        if not is_timm(self.arch):
            check_heads(self.embed_dim, self.num_heads)
        return self


Variant = Literal["adios", "adios_s"]
"""Which of an image's masks become views: all of them, or one that is drawn."""

Fill = Literal["zero", "mean", "blur", "noise"]
"""What may stand in the hole of a masked view."""


class MaskConfig(Config):
    """The model that draws the masks, and how often they are used."""

    mask_model_type: Annotated[Literal["vit_unet", "adios"], Shapes("weights"), Basic()] = (
        "vit_unet"
    )
    """A ViT with a CellViT-style decoder, or the U-Net of the original ADIOS."""

    num_masks: Annotated[int, Shapes("weights")] = Field(default=3, ge=2)
    """Masks per image; they add up to one at every pixel."""

    variant: Annotated[Variant, Shapes("step")] = "adios"
    """Whether every mask becomes a masked view, or one that is drawn for each image and half of a
    step (ADIOS-s), which costs the student a fraction; penalties look at all masks in any case."""

    crops_per_mask: Annotated[int, Shapes("step")] = Field(default=1, ge=0)
    """Random resized crops taken from every masked view, for the student only."""

    crop_size: Annotated[int | None, Shapes("step")] = Field(default=None, gt=0)
    """Side in pixels of those crops; absent: the image size."""

    mask_source: Annotated[Literal["learned", "random", "none"], Shapes("step")] = "learned"
    """Where masks come from; the others are controls: smooth random ones of equal areas, or no
    masks at all, so that only crops differ from the clean view."""

    mask_ema: Annotated[float, Shapes("step")] = Field(default=0.0, ge=0, lt=1)
    """Decay of a moving average of the mask model, which pictures, scores and loading then use; 0
    uses the trained weights themselves."""

    fill: Annotated[Fill, Shapes("step")] = "zero"
    """What stands in the hole of a masked view: zero, which is the data's mean colour; the image's
    mean colour; the image blurred, by a sixteenth of its side; or noise with the image's mean and
    spread."""

    mask_update_freq: Annotated[int, Shapes("step")] = Field(default=1, ge=1)
    """The mask model is updated on every n-th iteration."""

    train_mask_until: Annotated[float, Shapes("step")] = Field(default=1.0, gt=0, le=1)
    """Fraction of the run after which the mask model is frozen: it still draws the masks, and the
    student trains on."""

    mask_forward: Annotated[Literal["auto", "shared", "separate"], Shapes("step")] = "auto"
    """Whether one pass of the mask model serves both halves of a step; auto: shared where no
    dropout is in play, else a pass for each half, so that each draws its own."""

    mask_encoder_dim: Annotated[int, Shapes("weights")] = Field(
        default=192, gt=0, multiple_of=HEAD_WIDTH
    )
    """Width of the vit_unet's encoder, a multiple of the head width."""

    mask_encoder_depth: Annotated[int, Shapes("weights")] = Field(default=12, ge=4)
    """Blocks of the vit_unet's encoder; the decoder reads it at each quarter."""

    mask_decoder_width: Annotated[int, Shapes("weights")] = Field(default=256, gt=0, multiple_of=64)
    """Channels of the vit_unet's decoder after its first doubling of the resolution, a multiple of
    64; half as many after each of the next three."""

    mask_dropout: Annotated[float, Shapes("step")] = Field(default=0.2, ge=0, lt=1)
    """Dropout in the vit_unet's decoder, and stochastic depth in its encoder."""

    mask_encoder_checkpoint: Annotated[Path | None, Shapes("step")] = None
    """Student run or checkpoint from which the vit_unet's encoder starts; absent: random."""

    freeze_mask_encoder: Annotated[bool, Shapes("weights")] = False
    """Train the vit_unet's decoder alone."""

    @model_validator(mode="after")
    def _vit_unet_settings_have_one(self) -> Self:
        if self.mask_model_type == "vit_unet":
            return self
        for name in (
            "mask_encoder_dim",
            "mask_encoder_depth",
            "mask_decoder_width",
            "mask_dropout",
            "mask_encoder_checkpoint",
            "freeze_mask_encoder",
        ):
            if is_changed(self, name):
                raise ValueError(
                    f"{name}={getattr(self, name)} would be ignored: mask_model_type="
                    f"{self.mask_model_type} has no ViT encoder. "
                    f"Drop it, or use --mask-model-type vit_unet."
                )
        return self

    @model_validator(mode="after")
    def _something_differs(self) -> Self:
        if self.mask_source == "none" and self.crops_per_mask == 0:
            raise ValueError(
                "mask_source=none and crops_per_mask=0 leave nothing to tell views apart. "
                "Use --crops-per-mask 1 or more."
            )
        return self

    @model_validator(mode="after")
    def _there_is_a_mask_model_to_freeze(self) -> Self:
        if self.mask_source != "learned" and is_changed(self, "train_mask_until"):
            raise ValueError(
                f"train_mask_until={self.train_mask_until} would be ignored: mask_source="
                f"{self.mask_source} trains no mask model. Drop it, or use --mask-source learned."
            )
        return self

    @model_validator(mode="after")
    def _there_are_holes(self) -> Self:
        if self.mask_source == "none" and is_changed(self, "fill"):
            raise ValueError(
                f"fill={self.fill} would be ignored: mask_source=none hides nothing. "
                f"Drop it, or use --mask-source learned."
            )
        return self

    @model_validator(mode="after")
    def _crops_are_taken(self) -> Self:
        if self.crop_size is not None and self.crops_per_mask == 0:
            raise ValueError(
                f"crop_size={self.crop_size} would be ignored: crops_per_mask=0. "
                f"Drop it, or use --crops-per-mask 1."
            )
        return self
