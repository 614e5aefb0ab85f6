"""An encoder as a folder that stock timm loads: ``config.json`` and ``model.safetensors``.

The encoder is timm's ``vit_giant_patch14_reg4_dinov2`` with other sizes, which the file of settings
states, so that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` needs no code of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from adios_tme.errors import CheckpointError, ConfigError
from adios_tme.files import write_whole
from adios_tme.models.layers import Normalise, swiglu_width
from adios_tme.models.sizes import encoder_sizes
from adios_tme.models.student import Encoder, in_timms_names
from adios_tme.models.vit import LAYER_SCALE, VisionTransformer
from adios_tme.models.weights import save_weights

ARCHITECTURE = "vit_giant_patch14_reg4_dinov2"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

#: What comes of reading a folder that something else has written.
FOREIGN = (ValueError, LookupError, TypeError, RuntimeError, SafetensorError, ConfigError)

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class ExportedEncoder:
    """An encoder with the normalisation of the images it was trained on."""

    encoder: Encoder
    mean: Channels
    std: Channels


def write_timm(exported: ExportedEncoder, folder: Path) -> None:
    """Write the folder; each of its files is whole or as it was.

    Raises:
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(in_timms_names(exported.encoder), folder / WEIGHTS_NAME)
    write_whole(folder / CONFIG_NAME, json.dumps(timm_config(exported), indent=2) + "\n")


def timm_config(exported: ExportedEncoder) -> dict[str, Any]:
    """What timm reads: the architecture, its sizes, and how images are normalised."""
    encoder = exported.encoder
    if isinstance(encoder, VisionTransformer):
        side, network, places = encoder.patch_embed.img_size, *_described(encoder)
    else:
        side, network, places = encoder.img_size, *encoder.described()
    return {
        **network,
        "num_classes": 0,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, side, side],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(exported.mean),
            "std": list(exported.std),
            "num_classes": 0,
            "pool_size": None,
            **places,
        },
    }


def _described(encoder: VisionTransformer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network, and the names of its first and last layer."""
    sizes = encoder_sizes(encoder)
    dim = sizes["embed_dim"]
    network = {
        "architecture": ARCHITECTURE,
        "num_features": dim,
        "global_pool": "token",
        "model_args": {
            "patch_size": sizes["patch_size"],
            "embed_dim": dim,
            "depth": sizes["depth"],
            "num_heads": sizes["num_heads"],
            # timm halves the hidden width of a gated MLP.
            "mlp_ratio": 2 * swiglu_width(dim) / dim,
            "reg_tokens": sizes["num_register_tokens"],
            "img_size": sizes["img_size"],
            "init_values": LAYER_SCALE,
            "dynamic_img_size": True,
        },
    }
    return network, {"first_conv": "patch_embed.proj", "classifier": "head"}


def read_timm(folder: Path) -> ExportedEncoder:
    """Load an encoder that `write_timm` has written, ready to evaluate.

    Raises:
        CheckpointError: If the folder is damaged, or holds another kind of network.
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        encoder = _build(config)
        in_timms_names(encoder).load_state_dict(load_file(folder / WEIGHTS_NAME))
        mean, std = (tuple(config["pretrained_cfg"][name]) for name in ("mean", "std"))
        encoder.normalise = Normalise(mean, std)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error.strerror}).") from error
    except FOREIGN as error:
        raise CheckpointError(
            f"{folder}: holds no encoder that adios-tme export has written. "
            f"Export it again with --what encoder, or give the run it came from."
        ) from error
    return ExportedEncoder(encoder.eval(), mean, std)


def _build(config: Mapping[str, Any]) -> Encoder:
    if config["architecture"] != ARCHITECTURE:
        from adios_tme.models.timm_encoder import TimmEncoder  # takes as long to load as torch

        return TimmEncoder(config["architecture"], config["pretrained_cfg"]["input_size"][1:2])
    sizes = config["model_args"]
    return VisionTransformer(
        img_size=sizes["img_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["embed_dim"],
        depth=sizes["depth"],
        num_heads=sizes["num_heads"],
        num_register_tokens=sizes["reg_tokens"],
    )
