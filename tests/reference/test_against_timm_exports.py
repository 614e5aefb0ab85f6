"""Exported encoders in stock timm, which knows nothing of this package."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.models.vision_transformer import checkpoint_filter_fn

from adios_tme import load_encoder
from adios_tme.config.model import ARCHITECTURES
from adios_tme.export.dinov2 import PREFIX, write_dinov2
from adios_tme.export.timm import ExportedEncoder, timm_config, write_timm
from adios_tme.models.vit import VisionTransformer

MEAN, STD = (0.68, 0.56, 0.72), (0.16, 0.17, 0.14)


def trained(arch: str, size: int, registers: int, depth: int = 2) -> VisionTransformer:
    """An encoder whose every weight has moved from where it began."""
    torch.manual_seed(1)
    dim, _, heads = ARCHITECTURES[arch]
    encoder = VisionTransformer(size, 16, dim, depth, heads, num_register_tokens=registers)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    return encoder.eval()


@pytest.mark.parametrize("registers", [4, 0])
@pytest.mark.parametrize("arch", ["vit_tiny", "vit_small", "vit_base", "vit_large"])
def test_stock_timm_gives_the_same_embeddings(arch: str, registers: int, tmp_path: Path) -> None:
    encoder = trained(arch, 224, registers)
    write_timm(ExportedEncoder(encoder, MEAN, STD), tmp_path)
    stock = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    data = resolve_model_data_config(stock)
    assert (tuple(data["mean"]), tuple(data["std"])) == (MEAN, STD)
    for size in (224, 160):
        images = torch.randn(2, 3, size, size)
        with torch.no_grad():
            expected = encoder(images)[:, 0]
            assert (stock(images) - expected).abs().max() < 1e-5
            assert (load_encoder(tmp_path)(images)[:, 0] - expected).abs().max() < 1e-6


def test_older_timm_takes_the_file_and_the_sizes(tmp_path: Path) -> None:
    encoder = trained("vit_tiny", 96, 4)
    exported = ExportedEncoder(encoder, MEAN, STD)
    write_timm(exported, tmp_path)
    config = timm_config(exported)
    stock = timm.create_model(
        config["architecture"],
        num_classes=0,
        checkpoint_path=str(tmp_path / "model.safetensors"),
        **config["model_args"],
    ).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(stock(images), encoder(images)[:, 0], rtol=0, atol=1e-5)


def test_timm_reads_the_teacher_file_as_one_of_dinov2(tmp_path: Path) -> None:
    encoder = trained("vit_tiny", 96, 4)
    write_dinov2(encoder, tmp_path / "teacher.pth")
    teacher = torch.load(tmp_path / "teacher.pth", weights_only=True)["teacher"]
    assert all(name.startswith(PREFIX) for name in teacher)
    weights = {name.removeprefix(PREFIX): weight for name, weight in teacher.items()}
    assert weights["pos_embed"].shape == (1, 1 + 36, 192)
    assert {"mask_token", "register_tokens", "blocks.0.mlp.w12.weight"} <= weights.keys()
    exported = timm_config(ExportedEncoder(encoder, MEAN, STD))
    stock = timm.create_model(exported["architecture"], num_classes=0, **exported["model_args"])
    stock.load_state_dict(checkpoint_filter_fn(weights, stock))  # type: ignore[arg-type]
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(stock.eval()(images), encoder(images)[:, 0], rtol=0, atol=1e-5)
