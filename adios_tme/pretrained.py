"""Trained networks from a run, a checkpoint, an exported folder or timm.

Whole networks are loaded strictly; weights that something else starts from are taken as far as they
fit, and what does not fit is named.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from adios_tme.config.load import build
from adios_tme.config.model import TIMM, is_timm
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import named_device
from adios_tme.errors import CheckpointError, ConfigError
from adios_tme.export.folder import is_exported, is_mask_folder
from adios_tme.export.run_facts import RunFacts, run_facts
from adios_tme.export.timm import WEIGHTS_NAME, Channels, ExportedEncoder, read_timm
from adios_tme.models.build import build_mask_model, build_student
from adios_tme.models.layers import Normalise
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.resolve import resolve
from adios_tme.models.student import Encoder, Student, in_timms_names
from adios_tme.models.weights import Weights, take_fitting, timm_model
from adios_tme.run_folder.checkpoints import find_checkpoint, read_without_optimizers
from adios_tme.version import __version__

#: Number format in which encoders are scored.
EXACT = ComputeConfig(precision="fp32")
_ENCODER = "encoder."
#: Key of a state that was read: where it lies, for what is said of it.
_PATH = "path"


def load_student(path: str | Path, device: str | torch.device = "cpu") -> Student:
    """Load the encoder and its head from a checkpoint or run folder, ready to evaluate.

    Raises:
        CheckpointError: If there is no whole checkpoint.
        ValueError: If torch knows no such device.

    Example:
        >>> import torch
        >>> from adios_tme import load_student
        >>> load_student(run)(torch.randn(2, 3, 32, 32)).shape  # what the loss compares
        torch.Size([2, 16])
    """
    if is_exported(Path(path)):
        raise CheckpointError(
            f"{path}: is an exported folder, which holds no head. Use load_encoder or "
            f"load_mask_model, or give the run it came from."
        )
    state, config = _read_with_config(Path(path))
    return _student(state, config, named_device(device))


def load_encoder(path: str | Path, device: str | torch.device = "cpu") -> Encoder:
    """Load the student's encoder from a checkpoint, a run folder or an exported folder.

    ``encoder.encode(images)`` takes images as they are read, and ``encoder(images)`` those that
    ``encoder.normalise`` has normalised; it gives tokens, or one vector an image where the encoder
    is a network of timm's (``arch=timm:NAME``).

    Raises:
        CheckpointError: If there is no whole checkpoint or export.
        ValueError: If torch knows no such device.

    Example:
        >>> import torch
        >>> from adios_tme import load_encoder
        >>> load_encoder(run)(torch.randn(2, 3, 32, 32))[:, 0].shape  # class tokens: the features
        torch.Size([2, 32])
    """
    if is_exported(Path(path)):
        return read_timm(Path(path)).encoder.to(named_device(device))
    return load_student(path, device).encoder


def load_mask_model(path: str | Path, device: str | torch.device = "cpu") -> MaskGenerator:
    """Load the mask model with its normalisation from a checkpoint, a run or an exported folder.

    Where the run kept a moving average of it (``mask_ema``), that is what is loaded.

    Raises:
        CheckpointError: If there is no whole checkpoint or export.
        ValueError: If torch knows no such device.

    Example:
        >>> import torch
        >>> from adios_tme import load_mask_model
        >>> load_mask_model(run)(torch.rand(2, 3, 50, 70)).shape
        torch.Size([2, 3, 50, 70])
    """
    if is_exported(Path(path)):
        exported = MaskGenerator.from_pretrained(path)
        return exported.to(named_device(device))
    state, config = _read_with_config(Path(path))
    return _mask_generator(state, config, named_device(device))


def load_for_export(path: Path, licence: str | None = None) -> tuple[ExportedEncoder, RunFacts]:
    """Load an encoder with what its model card tells.

    Args:
        path: A checkpoint or run folder.
        licence: Of the weights.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(path)
    encoder = _student(state, config, torch.device("cpu")).encoder
    facts = run_facts(find_checkpoint(path), state, config, licence)
    return ExportedEncoder(encoder, config.data.mean, config.data.std), facts


def load_mask_model_for_export(
    path: Path, licence: str | None = None
) -> tuple[MaskGenerator, RunFacts]:
    """`load_for_export` of the mask model.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(path)
    generator = _mask_generator(state, config, torch.device("cpu"))
    return generator, run_facts(find_checkpoint(path), state, config, licence)


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
    generator = _mask_generator(state, config, named_device(device))
    return TrainedMaskModel(generator, int(state["iteration"]), config.mask.num_masks)


class TrainedEncoder(NamedTuple):
    """An encoder, with what its checkpoint tells of it and of the images it takes."""

    encoder: Encoder
    iteration: int
    img_size: int
    """Side of the images in pixels."""
    mean: Channels
    std: Channels
    sizes: dict[str, Any]
    """What the shapes of its weights follow from, by the names of the settings."""


def load_encoder_for_scoring(
    path: Path,
    device: str | torch.device = "cpu",
    compute: ComputeConfig = EXACT,
) -> TrainedEncoder:
    """`load_encoder`, with what a benchmark has to know of it.

    Args:
        path: A checkpoint or run folder.
        device: Where it goes.
        compute: Number format and kernels it will run with.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    state, config = _read_with_config(Path(path))
    config = config.model_copy(update={"compute": compute})
    return _trained(_student(state, config, named_device(device)), state, config)


def untrained_encoder(path: Path, seed: int, device: str | torch.device = "cpu") -> TrainedEncoder:
    """An encoder of the same shape as a checkpoint's, with its first weights drawn anew.

    Raises:
        CheckpointError: If there is no whole checkpoint.
    """
    _, config = _read_with_config(Path(path))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        resolved = resolve(config, torch.device("cpu"))  # the same weights on every device
        student = build_student(config.model, config.data.img_size, resolved)
    return _trained(student.to(device).eval(), {"iteration": 0}, config)


def _trained(student: Student, state: dict[str, Any], config: TrainConfig) -> TrainedEncoder:
    model, data = config.model, config.data
    names = ("patch_size", "embed_dim", "depth", "num_heads", "num_register_tokens")
    sizes: dict[str, Any] = {name: int(getattr(model, name)) for name in names}
    if is_timm(model.arch):
        sizes = {"arch": model.arch}
    iteration = int(state["iteration"])
    return TrainedEncoder(student.encoder, iteration, data.img_size, data.mean, data.std, sizes)


def _mask_generator(
    state: dict[str, Any], config: TrainConfig, device: torch.device
) -> MaskGenerator:
    data = config.data
    network = build_mask_model(config.mask, config.model, data.img_size, resolve(config, device))
    average = state.get("mask_average")
    _load_weights(network, average["weights"] if average else state["mask_model"], state)
    return MaskGenerator(network, data.img_size, data.mean, data.std).to(device).eval()


def _student(state: dict[str, Any], config: TrainConfig, device: torch.device) -> Student:
    student = build_student(config.model, config.data.img_size, resolve(config, device))
    _load_weights(student, state["student"], state)
    student.encoder.normalise = Normalise(config.data.mean, config.data.std).to(device)
    return student.eval()


def _load_weights(network: nn.Module, weights: Weights, state: dict[str, Any]) -> None:
    """Load all of a network's weights.

    Raises:
        CheckpointError: If they are not those of a network of the checkpoint's settings.
    """
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        reason = shorten(str(error).strip().splitlines()[-1].rstrip("."), 200, placeholder=" ...")
        raise CheckpointError(
            f"{state[_PATH]}: its weights do not fit the {type(network).__name__} of its settings "
            f"({reason}). It was written by adios_tme {_version(state)}; use that version, this is "
            f"{__version__}."
        ) from error


def _version(state: dict[str, Any]) -> str:
    return str(state.get("version", "of an earlier release"))


def _read_with_config(path: Path) -> tuple[dict[str, Any], TrainConfig]:
    checkpoint = find_checkpoint(path)
    state = read_without_optimizers(checkpoint) | {_PATH: checkpoint}
    try:
        config = build(TrainConfig, state["config"])
    except ConfigError as error:
        raise CheckpointError(
            f"{checkpoint}: has settings that adios_tme {__version__} cannot read ({error}) It was "
            f"written by adios_tme {_version(state)}; use that version, or a newer one."
        ) from error
    # What the run computed with need not exist where it is loaded.
    return state, config.model_copy(update={"compute": ComputeConfig()})


def init_from(student: Student, mask_model: nn.Module, source: str) -> list[str]:
    """Take weights from a run, a checkpoint, an exported encoder or timm, as far as they fit.

    Args:
        student: Changed in place.
        mask_model: Changed in place where the source has a mask model.
        source: A run folder, a checkpoint, an exported folder of an encoder or a mask model, a
            folder with ``model.safetensors``, or ``timm:NAME``.

    Returns:
        Why each tensor that did not fit was not used, or kept its first values.

    Raises:
        CheckpointError: If there is no such thing, it is damaged, or not one tensor fits.
    """
    encoder = in_timms_names(student.encoder)
    if source.startswith(TIMM):
        weights = timm_model(source.removeprefix(TIMM)).state_dict()
        return _take(encoder, weights, "encoder", source)
    if is_mask_folder(Path(source)):
        weights = MaskGenerator.from_pretrained(source).network.state_dict()
        return _take(mask_model, weights, "mask model", source)
    if (Path(source) / WEIGHTS_NAME).is_file():
        return _take(encoder, _exported_weights(Path(source)), "encoder", source)
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


def _exported_weights(folder: Path) -> Weights:
    path = folder / WEIGHTS_NAME
    try:
        return load_file(path)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: is damaged or not a safetensors file. Save or download it again."
        ) from error
