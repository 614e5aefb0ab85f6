"""The U-Net's forward pass against one written out level by level on the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adios_tme.models.mask_models.unet import AdiosUNet


def unet_by_hand(network: AdiosUNet, x: Tensor) -> Tensor:
    """The U-Net of GENESIS, which ADIOS draws its masks with, from a flat list of weights."""
    weights = dict(network.named_parameters())

    def block(name: str, x: Tensor) -> Tensor:
        x = F.conv2d(x, weights[f"{name}.0.weight"], padding=1)
        x = F.group_norm(x, 8, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"])
        return torch.relu(x)

    sizes, kept = [], []
    level = 0
    while f"down.{level}.0.weight" in weights:
        if level:
            x = x[:, :, ::2, ::2][:, :, : x.shape[2] // 2, : x.shape[3] // 2]
        x = block(f"down.{level}", x)
        kept.append(x)
        sizes.append(x.shape[-1])
        level += 1
    shape = x.shape
    x = x.reshape(len(x), -1)
    for layer in (0, 2, 4):
        x = torch.relu(x @ weights[f"mlp.{layer}.weight"].T + weights[f"mlp.{layer}.bias"])
    x = x.reshape(shape)
    for up in range(level):
        side = sizes[level - 1 - up]
        if x.shape[-1] != side:
            places = torch.arange(side) * x.shape[-1] // side
            x = x[:, :, places][:, :, :, places]
        x = block(f"up.{up}", torch.cat([x, kept[level - 1 - up]], dim=1))
    logits = torch.einsum("bchw,nc->bnhw", x, weights["final_conv.weight"][:, :, 0, 0])
    logits = logits + weights["final_conv.bias"][:, None, None]
    return torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("size", [64, 224])
def test_forward(size: int) -> None:
    network = AdiosUNet(size, num_masks=3).double()
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        found, expected = network(images), unet_by_hand(network, images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_it_has_the_levels_of_the_original() -> None:
    # 224 px: log2(224) - 1 = 6 levels; 32 channels in the upper three, 64 in the lower three.
    network = AdiosUNet(224)
    widths = [tuple(block[0].weight.shape[:2]) for block in network.down]  # type: ignore[index]
    assert widths == [(32, 3), (32, 32), (32, 32), (64, 32), (64, 64), (64, 64)]
    assert network.mlp[0].weight.shape == (128, 64 * 7 * 7)
