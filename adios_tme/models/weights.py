"""Weights to files, and weights from elsewhere, taken as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save
from torch import Tensor, nn

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
