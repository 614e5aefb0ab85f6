"""From images to features: encoders, and statistics of their colours.

Shape legend: B images, H x W pixels, S image side, D width of a feature, K bins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from adios_tme.benchmark.probe.class_folders import ImageReader
from adios_tme.config.commands.embed import Pool
from adios_tme.config.model import TIMM
from adios_tme.data.decode import Pixels
from adios_tme.data.resize import resize_image
from adios_tme.data.stain import stain_amounts
from adios_tme.errors import CheckpointError
from adios_tme.inference.pool import pool_tokens
from adios_tme.models.layers import Normalise
from adios_tme.models.student import as_vit
from adios_tme.models.weights import timm_model
from adios_tme.pretrained import TrainedEncoder

Features = NDArray[np.float32]

#: Bins of the histogram of a stain's amounts, and the amount (natural optical density) from which
#: on all is in the last one.
NUM_BINS, MOST_STAIN = 16, 2.0


class Describer(Protocol):
    """Turns images into features."""

    needed_px: int | None
    """Side to which images are resized; None where all their pixels count."""
    standardise: bool
    """Whether features have units of their own, and are made comparable before similarities."""

    def prepare(self, pixels: Pixels) -> NDArray[Any]:
        """What one image (H, W, 3) becomes in the thread that has read it."""

    def embed(self, prepared: Sequence[NDArray[Any]]) -> Features:
        """Features (B, D) of several."""


class ColourStatistics:
    """Mean, deviation and histograms of colours and stains, at the image's own size.

    Mean and standard deviation of red, green and blue (0 to 1) and of the amounts of haematoxylin,
    eosin and residual stain (Ruifrok and Johnston 2001), and a histogram of each stain's amounts.
    """

    needed_px: int | None = None
    standardise = True

    def prepare(self, pixels: Pixels) -> NDArray[np.float32]:
        """The statistics of one image (D,)."""
        stains_HWC = stain_amounts(pixels)
        values = [
            part
            for channels_HWC in (pixels / np.float32(255), stains_HWC)
            for part in (channels_HWC.mean(axis=(0, 1)), channels_HWC.std(axis=(0, 1)))
        ]
        places_HWC = (stains_HWC * (NUM_BINS / MOST_STAIN)).astype(np.int64).clip(0, NUM_BINS - 1)
        for stain in range(3):
            counts_K = np.bincount(places_HWC[..., stain].ravel(), minlength=NUM_BINS)
            values.append(counts_K / places_HWC[..., stain].size)
        return np.concatenate(values).astype(np.float32)

    def embed(self, prepared: Sequence[NDArray[Any]]) -> Features:
        """Features (B, D) of several."""
        return np.stack(prepared)


class EncoderFeatures:
    """Features of an encoder, on images as it was trained on.

    Args:
        network: From normalised images (B, 3, S, S) to features (B, D), in evaluation mode.
        img_size: S in pixels; images are resized to it as a whole.
        mean: Of the normalisation, 0 to 1.
        std: Of the normalisation, 0 to 1.
        device: Where it runs.
    """

    standardise = False

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        img_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: str | torch.device,
    ) -> None:
        self.needed_px: int | None = img_size
        self._img_size = img_size
        self._network = network
        self._normalise = Normalise(mean, std).to(device)
        self._device = device

    def prepare(self, pixels: Pixels) -> NDArray[np.uint8]:
        """One image of the side that the encoder takes."""
        return resize_image(pixels, self._img_size)

    @torch.no_grad()
    def embed(self, prepared: Sequence[NDArray[Any]]) -> Features:
        """Features (B, D) of several."""
        images_BHWC = torch.from_numpy(np.stack(prepared)).to(self._device)
        images_BCHW = self._normalise(images_BHWC.permute(0, 3, 1, 2).contiguous())
        features: Features = self._network(images_BCHW).float().cpu().numpy()
        return features


def features_of(trained: TrainedEncoder, pool: Pool, device: str | torch.device) -> EncoderFeatures:
    """The features of one of our encoders."""
    encoder = trained.encoder

    def network(images_BCHW: Tensor) -> Tensor:
        if pool == "cls":
            return encoder.class_tokens([images_BCHW])
        vit = as_vit(encoder, f"pool={pool}")
        return pool_tokens(vit(images_BCHW), pool, vit.num_prefix_tokens)

    return EncoderFeatures(network, trained.img_size, trained.mean, trained.std, device)


def timm_features(name: str, device: str | torch.device) -> tuple[EncoderFeatures, nn.Module]:
    """The features that a timm model gives by itself (``num_classes=0``), and the model.

    Images are resized to its size as a whole, and normalised as its weights ask for.

    Args:
        name: ``timm:NAME``.
        device: Where it runs.

    Raises:
        CheckpointError: If timm does not know it, or its weights are not on this machine.
    """
    model = timm_model(name.removeprefix(TIMM), offline=True, num_classes=0)
    model = model.to(device).eval()
    data = resolve_model_data_config(model)
    side = int(data["input_size"][-1])
    return EncoderFeatures(model, side, data["mean"], data["std"], device), model


@dataclass(frozen=True)
class Reading:
    """How images are read and embedded."""

    batch_size: int
    threads: ThreadPoolExecutor
    num_threads: int

    def features(
        self,
        describer: Describer,
        reader: ImageReader,
        num_images: int,
        what: str,
        on_image: Callable[[], None],
    ) -> Features:
        """Features of all images in their order (I, D).

        Args:
            describer: Gives them.
            reader: Reads images by their numbers.
            num_images: How many there are.
            what: Whose features they are, for messages.
            on_image: Called after each.

        Raises:
            CheckpointError: If features are not finite.
            DataError: If an image cannot be read.
        """
        found: list[Features] = []
        prepared: list[NDArray[Any]] = []
        for each in self._ahead(describer, reader, num_images):
            prepared.append(each)
            on_image()
            if len(prepared) == self.batch_size:
                found.append(describer.embed(prepared))
                prepared = []
        if prepared:
            found.append(describer.embed(prepared))
        features = np.concatenate(found)
        if not np.isfinite(features).all():
            raise CheckpointError(
                f"{what}: its features are not finite. "
                f"Use a checkpoint from before the run diverged."
            )
        return features

    def _ahead(
        self, describer: Describer, reader: ImageReader, num_images: int
    ) -> Iterator[NDArray[Any]]:
        """Images in their order, read by threads while those before them are embedded."""

        def read(row: int) -> NDArray[Any]:
            return describer.prepare(reader(row, describer.needed_px))

        waiting: deque[Future[NDArray[Any]]] = deque()
        try:
            for row in range(num_images):
                waiting.append(self.threads.submit(read, row))
                if len(waiting) >= 2 * self.batch_size + self.num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()
