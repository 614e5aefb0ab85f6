"""What an expert writes in thirty lines: zipfile, Pillow, timm's transforms, torch's DataLoader.

Shape legend: B images, S image side, D width of a feature.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from adios_tme.benchmark.open_slide_alone import OpenSlideAlone
from adios_tme.data.index import DatasetIndex, Patch
from adios_tme.data.members import Kind
from adios_tme.data.reader import OpenArchives
from adios_tme.export.timm import ExportedEncoder, write_timm
from adios_tme.inference.embed.encoder import FeatureEncoder
from adios_tme.inference.pool import pool_tokens
from adios_tme.models.vit import VisionTransformer


class PlainPatches(Dataset[Tensor]):
    """Patches through zipfile, from a folder, or tiles by OpenSlide; tars through our own reader.

    Args:
        index: Says where they lie.
        rows: Those that are read.
        encoder: Its image size and normalisation.
    """

    def __init__(self, index: DatasetIndex, rows: list[int], encoder: FeatureEncoder) -> None:
        self.patches = index.patches(rows)
        self.transform: Any = create_transform(
            input_size=encoder.img_size,
            interpolation="bicubic",
            mean=encoder.mean,
            std=encoder.std,
            crop_pct=1.0,
        )
        self._zips: dict[str, zipfile.ZipFile] = {}
        self._others = OpenArchives()
        self._slides: OpenSlideAlone | None = None  # made in the worker, which opens its own

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, number: int) -> Tensor:
        """A normalised image (3, S, S)."""
        patch = self.patches[number]
        if patch.archive.kind == Kind.SLIDE:
            self._slides = self._slides or OpenSlideAlone()
            tile: Tensor = self.transform(self._slides.read(patch))
            return tile
        with Image.open(io.BytesIO(self._content(patch))) as image:
            normalised: Tensor = self.transform(image.convert("RGB"))
        return normalised

    def _content(self, patch: Patch) -> bytes:
        archive = patch.archive
        if archive.kind == Kind.FOLDER:
            return (archive.path / patch.member.name).read_bytes()
        if archive.kind != Kind.ZIP:
            return self._others.read(patch)
        if archive.full_path not in self._zips:
            self._zips[archive.full_path] = zipfile.ZipFile(archive.full_path)
        return self._zips[archive.full_path].read(patch.member.name)


class TimmLoop:
    """Features by stock timm, over a DataLoader.

    Args:
        index: The patches.
        rows: Those to embed.
        encoder: Whose weights, as a network of timm's.
        device: Where it runs.
        batch_size: Images per step.
        num_workers: Of the DataLoader.
    """

    def __init__(
        self,
        index: DatasetIndex,
        rows: list[int],
        encoder: FeatureEncoder,
        device: torch.device,
        batch_size: int,
        num_workers: int,
    ) -> None:
        self._index, self._rows, self._encoder = index, rows, encoder
        self._network = as_timm(encoder).to(device).eval()
        self._device = device
        self._batch_size = batch_size
        self._num_workers = num_workers

    @torch.inference_mode()
    def run(self) -> Tensor:
        """Features of all patches, float32 (N, D)."""
        loader = DataLoader(
            PlainPatches(self._index, self._rows, self._encoder),
            self._batch_size,
            num_workers=self._num_workers,
            pin_memory=self._device.type == "cuda",
        )
        features = []
        dtype = self._encoder.dtype
        for images in loader:
            on_device = images.to(self._device, non_blocking=True)
            with torch.autocast(self._device.type, dtype, dtype is not torch.float32):
                features.append(self._features(on_device).float().cpu())
        return torch.cat(features)

    def _features(self, images_BCSS: Tensor) -> Tensor:
        network: Any = self._network
        if self._encoder.pool == "cls" or not hasattr(network, "num_prefix_tokens"):
            plain: Tensor = network(images_BCSS)
            return plain
        tokens_BTD = network.forward_features(images_BCSS)
        return pool_tokens(tokens_BTD, self._encoder.pool, network.num_prefix_tokens)


def as_timm(encoder: FeatureEncoder) -> nn.Module:
    """The same network as stock timm builds it."""
    network = encoder.network
    if not isinstance(network, VisionTransformer):
        return network
    mean, std = ((each[0], each[1], each[2]) for each in (encoder.mean, encoder.std))
    with tempfile.TemporaryDirectory(prefix="adios_tme_") as folder:
        write_timm(ExportedEncoder(network, mean, std), Path(folder))
        return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
