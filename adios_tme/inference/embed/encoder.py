"""Any encoder as a function from pixels to features: ours, an exported folder, or one of timm's.

Shape legend: B images, S image side, T tokens of an image, D width, h x w places of a map.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adios_tme.config.base import LOCAL_DIR
from adios_tme.config.commands.embed import FeatureConfig, Pool
from adios_tme.config.model import TIMM
from adios_tme.config.run import ComputeConfig
from adios_tme.errors import CheckpointError, ConfigError
from adios_tme.export.folder import is_exported, is_mask_folder
from adios_tme.inference.embed.found import Found
from adios_tme.inference.pool import pool_tokens
from adios_tme.models.layers import Normalise
from adios_tme.models.resolve import resolve_precision
from adios_tme.models.student import in_timms_names
from adios_tme.models.vit import VisionTransformer
from adios_tme.pretrained import TrainedEncoder, load_encoder_for_scoring
from adios_tme.run_folder.layout import iteration_of

Channels = tuple[float, ...]


class FeatureEncoder(nn.Module):
    """Pixels in, one feature vector an image out.

    Args:
        network: A VisionTransformer, or a network of timm's.
        pool: What of an image becomes its feature.
        img_size: Side of the images in pixels.
        mean: Channel means of the normalisation, 0 to 1.
        std: Channel standard deviations, 0 to 1.
        dtype: Number format of the arithmetic.
    """

    def __init__(
        self,
        network: nn.Module,
        pool: Pool,
        img_size: int,
        mean: Channels,
        std: Channels,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.network = network
        self.pool: Pool = pool
        self.img_size = img_size
        self.mean, self.std = mean, std
        self.normalise = Normalise(mean, std)
        self.dtype = dtype

    @torch.inference_mode()
    def forward(self, images_BCSS: Tensor) -> Tensor:
        """Features of uint8 images (B, 3, S, S), as (B, D) float32; D is doubled by cls_mean."""
        images = self.normalise(images_BCSS)
        with torch.autocast(images.device.type, self.dtype, self.dtype is not torch.float32):
            return self._pooled(images).float()

    def _pooled(self, images_BCSS: Tensor) -> Tensor:
        network: Any = self.network
        if isinstance(network, VisionTransformer):
            if self.pool == "cls":
                return network.class_tokens([images_BCSS])
            return pool_tokens(network(images_BCSS), self.pool, network.num_prefix_tokens)
        features = network.forward_features(images_BCSS)
        if features.ndim == 4:  # a network without tokens: channels first, or last
            channels_last = features.shape[1] != network.num_features
            means: Tensor = features.mean((1, 2) if channels_last else (2, 3))
            return means
        norm = getattr(network, "fc_norm", nn.Identity())  # of those that timm pools by the mean
        num_prefix = getattr(network, "num_prefix_tokens", 0)
        parts = pool_tokens(features, self.pool, num_prefix).split(features.shape[-1], 1)
        return torch.cat([norm(part) for part in parts], dim=1)

    @property
    def dim(self) -> int:
        """Width of a feature."""
        network: Any = self.network
        width = int(
            network.embed_dim if isinstance(network, VisionTransformer) else network.num_features
        )
        return 2 * width if self.pool == "cls_mean" else width

    def digest(self) -> str:
        """What tells its weights from others: SHA-256 of their names and values."""
        digest = hashlib.sha256()
        for name, weight in self.network.state_dict().items():
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def load_feature_encoder(
    source: str, config: FeatureConfig, device: torch.device
) -> FeatureEncoder:
    """Load what ``adios-tme embed`` takes, ready to use.

    Args:
        source: A run, a checkpoint, a folder that timm reads, or ``timm:NAME``.
        config: Pooling and number format.
        device: Where it runs.

    Raises:
        CheckpointError: If there is no such thing, it is damaged, or its weights are not at hand.
        ConfigError: If it has no class token to pool.
    """
    source = _without_local_dir(source)
    if source.startswith(TIMM):
        from adios_tme.inference.embed.timm_models import at_hand

        found = at_hand(source.removeprefix(TIMM))
    elif is_mask_folder(Path(source)):
        raise CheckpointError(
            f"{source}: holds a mask model, which has no features. Give the run it came from, or "
            f"an encoder exported with --what encoder."
        )
    elif is_exported(Path(source)):
        from adios_tme.inference.embed.timm_models import from_folder

        found = from_folder(Path(source))
    else:
        compute = ComputeConfig(precision=config.precision)
        found = _of_ours(load_encoder_for_scoring(Path(source), device, compute))
    if config.pool != "mean" and not found.has_class_token:
        raise ConfigError(
            f"{source}: has no class token, which pool={config.pool} needs. Use --pool mean."
        )
    dtype = resolve_precision(config.precision, device)
    network = found.network.eval().requires_grad_(False)
    encoder = FeatureEncoder(network, config.pool, found.img_size, found.mean, found.std, dtype)
    return encoder.to(device).eval()


def name_of(source: str) -> str:
    """How folders and attributes call an encoder unless told otherwise."""
    source = _without_local_dir(source)
    if source.startswith(TIMM):
        name = source.removeprefix(TIMM)
    elif Path(source).is_file():
        checkpoint = Path(source).resolve()
        iteration = iteration_of(checkpoint)
        run = checkpoint.parent.name
        name = run if iteration is None else f"{run}_iter_{iteration:08d}"
    else:
        name = Path(source).resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-") or "encoder"


def _without_local_dir(source: str) -> str:
    """The folder that ``timm:local-dir:FOLDER`` means, as `benchmark probe --rival` takes it."""
    return source.removeprefix(f"{TIMM}{LOCAL_DIR}")


def _of_ours(trained: TrainedEncoder) -> Found:
    network = in_timms_names(trained.encoder)
    has_class_token = getattr(network, "cls_token", None) is not None
    return Found(network, trained.img_size, trained.mean, trained.std, has_class_token)
