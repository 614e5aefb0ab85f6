"""What is counted on shapes alone is what real arithmetic has."""

from __future__ import annotations

import pytest
import torch

from adios_tme.benchmark.throughput.counting import kept_bytes
from adios_tme.models.mask_models.unet import AdiosUNet
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.vit import VisionTransformer


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["adios", "vit_unet"])
def test_shapes_alone_keep_what_arithmetic_keeps(kind: str, recompute: bool) -> None:
    counted = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            if kind == "adios":
                network: AdiosUNet | ViTUNet = AdiosUNet(64, 3, grad_checkpointing=recompute)
            else:
                encoder = VisionTransformer(64, 4, 32, 4, 2, grad_checkpointing=recompute)
                network = ViTUNet(encoder, 4, decoder_width=64, grad_checkpointing=recompute)
            images = torch.zeros(2, 3, 64, 64)
        counted.append(kept_bytes(network.train(), lambda on=network, of=images: on(of)))  # type: ignore[misc]
    of_arithmetic, of_shapes = counted
    assert of_shapes == of_arithmetic
