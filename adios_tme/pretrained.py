"""Trained networks from a run, a checkpoint, an exported folder or timm.

Whole networks are loaded strictly; weights that something else starts from are taken as far as they
fit, and what does not fit is named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from adios_tme.config.load import build
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.errors import CheckpointError
from adios_tme.export.model_card import CardFacts
from adios_tme.export.timm import WEIGHTS_NAME, ExportedEncoder, is_timm_folder, read_timm
from adios_tme.models.build import build_mask_model, build_student
from adios_tme.models.generator import MaskGenerator
from adios_tme.models.resolve import resolve
from adios_tme.models.student import Student
from adios_tme.models.vit import VisionTransformer
from adios_tme.models.vit_unet import ViTUNet
from adios_tme.models.weights import Weights, take_fitting
from adios_tme.run_folder.checkpoints import find_checkpoint, read_without_optimizers

TIMM = "timm:"
_ENCODER = "encoder."


def load_student(path: Path, device: str | torch.device = "cpu") -> Student:
    """Load the encoder and its head from a checkpoint or run folder, ready to evaluate.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(Path(path))
    return _student(state, config, torch.device(device))


def load_encoder(path: Path, device: str | torch.device = "cpu") -> VisionTransformer:
    """Load the student's encoder from a checkpoint, a run folder or an exported folder.

    Raises:
        CheckpointError: If there is no whole checkpoint or export.
    """
    if is_timm_folder(Path(path)):
        return read_timm(Path(path)).encoder.to(device)
    return load_student(path, device).encoder


def load_with_normalisation(
    path: Path, device: torch.device, compute: ComputeConfig
) -> ExportedEncoder:
    """Load the encoder of a checkpoint or run folder with the normalisation of its images.

    Args:
        path: Where it is.
        device: Where it goes.
        compute: Number format and kernels it will run with.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(path)
    config = config.model_copy(update={"compute": compute})
    encoder = _student(state, config, device).encoder.to(device)
    return ExportedEncoder(encoder, config.data.mean, config.data.std)


def load_for_export(path: Path, licence: str | None = None) -> tuple[ExportedEncoder, CardFacts]:
    """Load an encoder with what its model card tells.

    Args:
        path: A checkpoint or run folder.
        licence: Of the weights.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(path)
    encoder = _student(state, config, torch.device("cpu")).encoder
    facts = CardFacts(
        iteration=state["iteration"],
        samples_seen=state["samples_seen"],
        version=state["version"],
        settings=state["config"],
        licence=licence,
    )
    return ExportedEncoder(encoder, config.data.mean, config.data.std), facts


def load_mask_model(path: Path, device: str | torch.device = "cpu") -> MaskGenerator:
    """Load the mask model with its normalisation from a checkpoint or run folder.

    Where the run kept a moving average of it (``mask_ema``), that is what is loaded.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(Path(path))
    return _mask_generator(state, config, torch.device(device))


class TrainedMaskModel(NamedTuple):
    """A mask model, and what its checkpoint tells of it."""

    generator: MaskGenerator
    iteration: int
    num_masks: int


def load_for_scoring(path: Path, device: str | torch.device = "cpu") -> TrainedMaskModel:
    """`load_mask_model`, with what a benchmark has to know of it.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(Path(path))
    generator = _mask_generator(state, config, torch.device(device))
    return TrainedMaskModel(generator, int(state["iteration"]), config.mask.num_masks)


def _mask_generator(
    state: dict[str, Any], config: TrainConfig, device: torch.device
) -> MaskGenerator:
    data = config.data
    network = build_mask_model(config.mask, config.model, data.img_size, resolve(config, device))
    average = state.get("mask_average")
    network.load_state_dict(average["weights"] if average else state["mask_model"])
    return MaskGenerator(network, data.img_size, data.mean, data.std).to(device).eval()


def _student(state: dict[str, Any], config: TrainConfig, device: torch.device) -> Student:
    student = build_student(config.model, config.data.img_size, resolve(config, device))
    student.load_state_dict(state["student"])
    return student.eval()


def _read_with_config(path: Path) -> tuple[dict[str, Any], TrainConfig]:
    checkpoint = find_checkpoint(path)
    state = read_without_optimizers(checkpoint)
    config = build(TrainConfig, state["config"], source=str(checkpoint))
    # What the run computed with need not exist where it is loaded.
    return state, config.model_copy(update={"compute": ComputeConfig()})


def init_from(student: Student, mask_model: nn.Module, source: str) -> list[str]:
    """Take weights from a run, a checkpoint, an exported encoder or timm, as far as they fit.

    Args:
        student: Changed in place.
        mask_model: Changed in place where the source has a mask model.
        source: A run folder, a checkpoint, a folder with ``model.safetensors``, or ``timm:NAME``.

    Returns:
        Why each tensor that did not fit was not used, or kept its first values.

    Raises:
        CheckpointError: If there is no such thing, it is damaged, or not one tensor fits.
    """
    if source.startswith(TIMM):
        weights = timm_weights(source.removeprefix(TIMM))
        return _take(student.encoder, weights, "encoder", source)
    if (Path(source) / WEIGHTS_NAME).is_file():
        return _take(student.encoder, _exported_weights(Path(source)), "encoder", source)
    state = read_without_optimizers(find_checkpoint(Path(source)))
    return [
        *_take(student, state["student"], "student", source),
        *_take(mask_model, state["mask_model"], "mask model", source),
    ]


def init_mask_encoder(mask_model: ViTUNet, source: Path) -> None:
    """Give the vit_unet's encoder the weights of a trained student's, all of them.

    Args:
        mask_model: Changed in place.
        source: A checkpoint.

    Raises:
        CheckpointError: If it is damaged, or its encoder is of another shape.
    """
    student = read_without_optimizers(source)["student"]
    weights = {
        name.removeprefix(_ENCODER): weight
        for name, weight in student.items()
        if name.startswith(_ENCODER)
    }
    misfits = mask_model.load_encoder(weights)
    if misfits:
        encoder = mask_model.encoder
        raise CheckpointError(
            f"{source}: its student does not fit the mask model's encoder "
            f"({encoder.embed_dim} wide, {len(encoder.blocks)} deep; first misfit: {misfits[0]}). "
            f"Match --mask-encoder-dim, --mask-encoder-depth, --patch-size and "
            f"--num-register-tokens to that run."
        )


def _take(network: nn.Module, weights: Weights, what: str, source: str) -> list[str]:
    """Load what fits, and return why the rest does not.

    Raises:
        CheckpointError: If nothing fits.
    """
    num_tensors, misfits = take_fitting(network, weights, what, source)
    if not num_tensors:
        raise CheckpointError(
            f"{source}: not one of its {len(weights)} tensors fits the {what} "
            f"(first: {misfits[0]}). Match --arch, --patch-size and the other sizes to it."
        )
    return misfits


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
            f"Connect to the hub once to fill its cache, or give a folder with {WEIGHTS_NAME}."
        ) from error
    return weights


def _exported_weights(folder: Path) -> Weights:
    path = folder / WEIGHTS_NAME
    try:
        return load_file(path)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: is damaged or not a safetensors file. Save or download it again."
        ) from error
