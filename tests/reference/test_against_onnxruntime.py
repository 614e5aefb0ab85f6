"""ONNX files in onnxruntime, which knows nothing of torch, against the networks in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from adios_tme.export.onnx import encoder_export, mask_export, write_onnx
from adios_tme.export.timm import ExportedEncoder
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.mask_models.unet import AdiosUNet
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.vit import VisionTransformer

SIDE = 32
MEAN, STD = (0.68, 0.56, 0.72), (0.16, 0.17, 0.14)
#: Neither batches nor sizes of the example that is traced, which has two.
SHAPES = [(1, SIDE, SIDE), (3, SIDE, SIDE), (1, 75, 20), (3, 20, 131), (2, 9, 9)]


def moved(network: nn.Module) -> nn.Module:
    """A network whose every weight has moved from where it began."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return network.eval()


def encoder(depth: int) -> VisionTransformer:
    return VisionTransformer(SIDE, 8, 32, depth, 2, num_register_tokens=2)


def images_of(shape: tuple[int, int, int]) -> torch.Tensor:
    number, *size = shape
    return torch.randint(0, 256, (number, 3, *size), dtype=torch.uint8)


def run(path: Path, images: torch.Tensor) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, {"images": images.numpy()})
    return found


@pytest.fixture(scope="module", params=["adios", pytest.param("vit_unet", marks=pytest.mark.slow)])
def masks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MaskGenerator, Path]:
    """A mask model and its file."""
    torch.manual_seed(0)
    network = AdiosUNet(SIDE) if request.param == "adios" else ViTUNet(encoder(depth=4), 8)
    generator = MaskGenerator(moved(network), SIDE, MEAN, STD).eval()
    path = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    write_onnx(mask_export(generator, 7), path)
    return generator, path


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_are_those_of_torch(
    shape: tuple[int, int, int], masks: tuple[MaskGenerator, Path]
) -> None:
    generator, path = masks
    images = images_of(shape)
    expected = generator(images, windows=False).numpy()
    (found,) = run(path, images)
    assert found.shape == (shape[0], 3, *shape[1:])
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_tokens_are_those_of_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = encoder(depth=2)
    moved(network)
    path = tmp_path / "encoder.onnx"
    write_onnx(encoder_export(ExportedEncoder(network, MEAN, STD), 7), path)
    for shape in SHAPES:
        images = images_of(shape)
        fitted = F.interpolate(images / 255, (SIDE, SIDE), mode="bicubic", antialias=True)
        mean, std = (torch.tensor(part)[:, None, None] for part in (MEAN, STD))
        with torch.no_grad():
            expected = network((fitted.clamp(0, 1) - mean) / std)
        class_token, patch_tokens = run(path, images)
        np.testing.assert_allclose(class_token, expected[:, 0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(patch_tokens, expected[:, 3:], rtol=0, atol=1e-4)
