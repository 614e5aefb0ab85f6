"""Our encoder against stock timm, given the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from adios_tme.models.layers import swiglu_width
from adios_tme.models.vit import VisionTransformer


def stock_vit(dim: int, depth: int, heads: int, patch: int, size: int, registers: int) -> Any:
    """timm's own, whose attributes it does not annotate."""
    network = timm.create_model(
        "vit_giant_patch14_reg4_dinov2",
        pretrained=False,
        num_classes=0,
        patch_size=patch,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        mlp_ratio=2 * swiglu_width(dim) / dim,
        reg_tokens=registers,
        img_size=size,
        init_values=0.1,
        dynamic_img_size=True,
    )
    return network.eval()


@pytest.mark.parametrize("size", [64, 96, 80])  # as built, larger, and another grid
def test_same_weights_give_the_same_tokens(size: int) -> None:
    ours = VisionTransformer(64, 16, 128, 3, 2, num_register_tokens=4).eval()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    stock = stock_vit(128, 3, 2, 16, 64, registers=4)
    stock.load_state_dict(ours.state_dict())  # strict: the same names and shapes
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = stock.forward_features(images)
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)
        pooled = ours.class_tokens([images])
        torch.testing.assert_close(pooled, expected[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dim", "hidden"), [(384, 1024), (768, 2048), (1024, 2736)])
def test_swiglu_has_the_promised_width(dim: int, hidden: int) -> None:
    assert swiglu_width(dim) == hidden
    block = VisionTransformer(32, 16, dim, 1, 8).blocks[0]
    assert block.mlp.fc2.in_features == hidden  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [64, 80])
def test_the_class_token_attends_as_in_timms_last_block(size: int) -> None:
    ours = VisionTransformer(64, 16, 128, 3, 2, num_register_tokens=4).eval()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    stock = stock_vit(128, 3, 2, 16, 64, registers=4)
    stock.load_state_dict(ours.state_dict())
    last = stock.blocks[-1].attn
    seen: list[torch.Tensor] = []
    last.fused_attn = False  # so that the weights exist
    last.attn_drop.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        stock.forward_features(images)
        attended = ours.class_attention(images)
    side = size // 16
    expected = seen[0][:, :, 0, 5:].unflatten(2, (side, side))
    torch.testing.assert_close(attended, expected, rtol=1e-4, atol=1e-6)
    assert attended.std() > 1e-3  # else any order of patches would do
