"""Encoders of timm's, or in folders that timm reads; apart, since timm takes seconds to load."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.data.config import resolve_model_data_config
from timm.models import get_pretrained_cfg
from torch import nn

from adios_tme.config.model import TIMM
from adios_tme.errors import CheckpointError
from adios_tme.inference.embed.found import Found
from adios_tme.models.weights import unknown_to_timm


def _found(network: nn.Module) -> Found:
    data = resolve_model_data_config(network)
    has_class_token = getattr(network, "cls_token", None) is not None
    return Found(
        network,
        int(data["input_size"][-1]),
        tuple(map(float, data["mean"])),
        tuple(map(float, data["std"])),
        has_class_token,
    )


def from_folder(folder: Path) -> Found:
    """An encoder in a folder that timm reads.

    Raises:
        CheckpointError: If timm cannot load it.
    """
    try:
        return _found(timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0))
    except Exception as error:  # whatever timm meets in files that anybody may have written
        raise CheckpointError(
            f"{folder}: timm cannot load it ({_first_line(error)}). "
            f"Export it again, or give the run it came from."
        ) from error


def at_hand(name: str) -> Found:
    """A model of timm's with pretrained weights that are on this machine already.

    Raises:
        CheckpointError: If there is no such model, or its weights are not here or damaged.
    """
    if fault := unknown_to_timm(name):
        raise CheckpointError(f"{fault} See timm.list_models(pretrained=True).")
    weights = _cached_weights(name)
    if weights is None:
        raise CheckpointError(
            f"{TIMM}{name}: its weights are not on this machine, and nothing is downloaded here. "
            f"Run timm.create_model({name!r}, pretrained=True) once where there is a network, or "
            f"give a folder that timm reads."
        )
    try:
        overlay = {"file": weights}
        return _found(
            timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
        )
    except Exception as error:  # whatever timm meets in the file
        raise CheckpointError(
            f"{TIMM}{name}: {weights} cannot be loaded ({_first_line(error)}). "
            f"Remove it, and download it again."
        ) from error


def _cached_weights(name: str) -> str | None:
    """The file that timm would take, in the cache of its hub or of torch's."""
    try:
        config = get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # a tag that this model does not have
        return None
    if config is None:
        return None
    if config.hf_hub_id:
        names = [config.hf_hub_filename] if config.hf_hub_filename else []
        for file in (*names, "model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(found, str):
                return found
    if isinstance(config.url, str) and config.url:
        path = Path(torch.hub.get_dir(), "checkpoints", config.url.rpartition("/")[2])
        return str(path) if path.is_file() else None
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
