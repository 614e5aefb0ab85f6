"""Weights from elsewhere to start with, as far as they fit: ``--init_from``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from adios_tme.checkpoint import find_checkpoint, read_checkpoint
from adios_tme.errors import CheckpointError
from adios_tme.training.state import Run

TIMM = "timm:"
EXPORTED = "model.safetensors"

logger = logging.getLogger(__name__)

Weights = Mapping[str, Tensor]


def init_from(run: Run, source: str) -> None:
    """Take weights from a run, a checkpoint, an exported encoder or timm, and log what did not fit.

    Args:
        run: Its networks are changed in place.
        source: A run folder, a checkpoint, a folder with ``model.safetensors``, or ``timm:NAME``.

    Raises:
        CheckpointError: If there is no such thing, it is damaged, or not one tensor fits.
    """
    encoder = run.bare_student.encoder
    if source.startswith(TIMM):
        misfits = _take(encoder, timm_weights(source.removeprefix(TIMM)), "encoder", source)
    elif (Path(source) / EXPORTED).is_file():
        misfits = _take(encoder, _exported_weights(Path(source)), "encoder", source)
    else:
        state = read_checkpoint(find_checkpoint(Path(source)))
        misfits = [
            *_take(run.bare_student, state["student"], "student", source),
            *_take(run.bare_mask_model, state["mask_model"], "mask model", source),
        ]
    if run.averaged_mask_model:
        run.averaged_mask_model.restart(run.bare_mask_model)
    logger.info("Started from the weights of %s; %d tensors did not fit", source, len(misfits))
    for misfit in misfits:
        logger.warning("%s", misfit)


def timm_weights(name: str) -> Weights:
    """Pretrained weights of a timm model, from its cache or its hub.

    Raises:
        CheckpointError: If timm does not know the model, or its weights cannot be had.
    """
    if not timm.is_model(name.split(".")[0]):
        raise CheckpointError(
            f"{TIMM}{name}: timm {timm.__version__} has no such model. "
            f"See timm.list_models(pretrained=True)."
        )
    try:
        weights: Weights = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # whatever the hub's client raises
        raise CheckpointError(
            f"{TIMM}{name}: the weights cannot be had ({type(error).__name__}). "
            f"Connect to the hub once to fill its cache, or give a folder with {EXPORTED}."
        ) from error
    return weights


def _exported_weights(folder: Path) -> Weights:
    try:
        return load_file(folder / EXPORTED)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{folder / EXPORTED}: is damaged or not a safetensors file. Save or download it again."
        ) from error


def _take(network: nn.Module, weights: Weights, what: str, source: str) -> list[str]:
    """Load what fits, and say of each other tensor on either side why it does not.

    Raises:
        CheckpointError: If nothing fits.
    """
    own = network.state_dict()
    fitting, misfits = {}, []
    for name, weight in weights.items():
        if name not in own:
            misfits.append(f"Not used: {what}.{name} {_shape(weight)}, which this model has not")
            continue
        fitted = _resampled(weight, own[name]) if name.endswith("pos_embed") else weight
        if fitted.shape == own[name].shape:
            fitting[name] = fitted
        else:
            misfits.append(
                f"Not used: {what}.{name} {_shape(weight)}, which is {_shape(own[name])} here"
            )
    misfits += [
        f"Left as drawn: {what}.{name} {_shape(own[name])}, which {source} has not"
        for name in own
        if name not in weights
    ]
    if not fitting:
        raise CheckpointError(
            f"{source}: not one of its {len(weights)} tensors fits the {what} "
            f"(first: {misfits[0]}). Match --arch, --patch-size and the other sizes to it."
        )
    network.load_state_dict(fitting, strict=False)
    return misfits


def _resampled(positions: Tensor, own: Tensor) -> Tensor:
    """Learned positions for another grid; those of class and register tokens are left out."""
    if positions.ndim != 3 or positions.shape[-1] != own.shape[-1]:
        return positions
    side = int(positions.shape[1] ** 0.5)
    new_side = int(own.shape[1] ** 0.5)
    patches = positions[:, positions.shape[1] - side * side :]
    resampled: Tensor = resample_abs_pos_embed(
        patches, new_size=[new_side, new_side], old_size=[side, side], num_prefix_tokens=0
    )
    return resampled


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
