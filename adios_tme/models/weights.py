"""Weights to files, and weights from elsewhere, taken as far as they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save
from torch import Tensor, nn

from adios_tme.config.base import LOCAL_DIR
from adios_tme.config.model import TIMM
from adios_tme.errors import CheckpointError
from adios_tme.files import replacing
from adios_tme.models.positions import resample_positions

Weights = Mapping[str, Tensor]


class Taken(NamedTuple):
    """What became of weights from elsewhere."""

    num_tensors: int
    """That fitted."""
    misfits: list[str]
    """A sentence for each tensor that was not used, and each that keeps its first values."""


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the weights of a network as safetensors; the file is whole or as it was.

    Raises:
        OSError: If it cannot be written.
    """
    weights = {
        name: weight.detach().cpu().contiguous() for name, weight in network.state_dict().items()
    }
    with replacing(path) as partial:
        # Not save_file, whose files nobody but their owner may read.
        partial.write_bytes(save(weights, {"format": "pt"}))


def take_fitting(network: nn.Module, weights: Weights, what: str, source: str) -> Taken:
    """Load what fits, learned positions resampled, and say of each other tensor why it does not.

    Args:
        network: Changed in place.
        weights: By name.
        what: The network, for the reasons.
        source: Where the weights come from, for the reasons.
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
    network.load_state_dict(fitting, strict=False)
    return Taken(len(fitting), misfits)


def _resampled(positions: Tensor, own: Tensor) -> Tensor:
    """Learned positions for another grid; those of class and register tokens are left out."""
    if positions.ndim != 3 or positions.shape[-1] != own.shape[-1]:
        return positions
    side = int(positions.shape[1] ** 0.5)
    new_side = int(own.shape[1] ** 0.5)
    patches = positions[:, positions.shape[1] - side * side :]
    return resample_positions(patches, new_side, new_side)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def unknown_to_timm(name: str) -> str | None:
    """What is wrong with a name of a model, if timm has none of it."""
    import timm

    if timm.is_model(name.partition(".")[0]):
        return None
    return f"{TIMM}{name}: timm {timm.__version__} has no such model."


def timm_model(name: str, *, offline: bool = False, **settings: Any) -> nn.Module:
    """A timm model with its pretrained weights, from a folder, timm's cache or its hub.

    Args:
        name: As in ``timm.create_model``; ``local-dir:FOLDER`` is an exported folder.
        offline: Take what is on this machine; asking a hub that does not answer takes a minute.
        settings: Passed on, such as ``num_classes``.

    Raises:
        CheckpointError: If timm does not know the model, or its weights cannot be had.
    """
    import timm  # takes as long to load as torch, and only this needs it

    if not name.startswith(LOCAL_DIR) and (fault := unknown_to_timm(name)):
        raise CheckpointError(f"{fault} See timm.list_models(pretrained=True).")
    try:
        with _hub_offline() if offline else nullcontext():
            model: nn.Module = timm.create_model(name, pretrained=True, **settings)
    except Exception as error:  # whatever the hub's client raises
        if offline:
            what = "are not on this machine"
            advice = (
                f"Call timm.create_model({name!r}, pretrained=True) once where there is a "
                f"network, which keeps them here, or give {TIMM}{LOCAL_DIR}FOLDER."
            )
        else:
            what = "cannot be had"
            advice = (
                "Connect to the hub once to fill its cache, or give a folder with "
                "model.safetensors."
            )
        raise CheckpointError(
            f"{TIMM}{name}: the weights {what} ({type(error).__name__}). {advice}"
        ) from error
    return model


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Keep the hub's client from asking the network; it reads its own switch only once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
