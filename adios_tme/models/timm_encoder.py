"""An encoder of timm's in the place of our ViT, trained from its first weights on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from adios_tme.errors import ConfigError
from adios_tme.models.batch_norm import share_batch_norms
from adios_tme.models.images import AnyImages, take_images
from adios_tme.models.layers import Normalise, fit_to_side
from adios_tme.models.weights import unknown_to_timm


class TimmEncoder(nn.Module):
    """A network of timm's as an encoder: the vector that it pools an image to.

    Batch norms see the images of all ranks (`adios_tme.models.batch_norm`).

    Args:
        name: As in ``timm.create_model``.
        sizes: Sides in pixels of the images that it will see, that of training first.
        drop_path_rate: Stochastic depth; 0 leaves the network's own.

    Raises:
        ConfigError: If timm has no such network, or it gives no vector for such images.
    """

    def __init__(self, name: str, sizes: Sequence[int], drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.name = name
        self.img_size = sizes[0]
        self.arguments = _arguments(name, self.img_size, drop_path_rate)
        self.network = timm.create_model(name, pretrained=False, num_classes=0, **self.arguments)
        self.normalise: Normalise | None = None
        self.embed_dim = self._check(sizes)
        try:
            share_batch_norms(self.network)
        except ValueError as error:
            raise ConfigError(f"arch=timm:{name}: {error}. Use another network.") from error

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Features (B, D) of normalised images."""
        features: Tensor = self.network(images_BCHW)
        return features

    def class_tokens(self, batches: Sequence[Tensor]) -> Tensor:
        """Features (sum of B_i, D) of batches of normalised images (B_i, 3, H_i, W_i), in order."""
        return torch.cat([self(images_BCHW) for images_BCHW in batches])

    @overload
    def encode(self, images: Tensor) -> Tensor: ...

    @overload
    def encode(self, images: NDArray[Any] | Image.Image) -> NDArray[Any]: ...

    @torch.no_grad()
    def encode(self, images: AnyImages) -> Tensor | NDArray[Any]:
        """Features of images as they are read, brought to the size of training and normalised.

        Args:
            images: As `adios_tme.VisionTransformer.encode` takes them.

        Returns:
            (D,) or (B, D), float32; of the kind of the images.

        Raises:
            ValueError: If images are none of these, of another range, or not finite; or the
                encoder knows no normalisation.
        """
        if self.normalise is None:
            raise ValueError("the encoder knows no normalisation. Load it with load_encoder.")
        given = take_images(images)
        given.check_range()
        weight = next(self.parameters())
        pixels = fit_to_side(given.unit().to(weight.device), self.img_size)
        return given.results_like(self(self.normalise(pixels).to(weight.dtype)).float())

    def described(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What ``config.json`` says of the network, and the names of its first and last layer."""
        network = {
            "architecture": self.name,
            "num_features": self.embed_dim,
            "model_args": self.arguments,
        }
        known: Mapping[str, Any] = getattr(self.network, "pretrained_cfg", {})
        return network, {name: known.get(name) for name in ("first_conv", "classifier")}

    @torch.no_grad()
    def _check(self, sizes: Sequence[int]) -> int:
        """Width of the features, once images of all sizes have gone through."""
        self.network.eval()
        try:
            shapes = {tuple(self.network(torch.zeros(1, 3, side, side)).shape) for side in sizes}
        except Exception as error:  # whatever a network says of a size that it does not take
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise ConfigError(
                f"arch=timm:{self.name}: does not take images of "
                f"{' and '.join(map(str, sizes))} px ({reason}). "
                f"Use another --img-size or --crop-size, or another network."
            ) from error
        self.network.train()
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise ConfigError(
                f"arch=timm:{self.name}: gives {sorted(shapes)} for an image, not one vector. "
                f"Use a network that timm pools."
            )
        return int(next(iter(shapes))[1])


def _arguments(name: str, img_size: int, drop_path_rate: float) -> dict[str, Any]:
    """What timm is to build the network with, beside its name.

    Raises:
        ConfigError: If timm has no such network.
    """
    if fault := unknown_to_timm(name):
        raise ConfigError(f"arch={fault} See timm.list_models().")
    arguments: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False)
    if hasattr(network, "set_input_size"):  # one with learned positions or windows
        arguments["img_size"] = img_size
    if hasattr(network, "pos_embed") and hasattr(network, "dynamic_img_size"):
        arguments["dynamic_img_size"] = True
    return arguments
