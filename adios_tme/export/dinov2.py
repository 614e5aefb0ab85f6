"""An encoder as the teacher file of DINOv2's trainer, which CellViT-style loaders read, too.

DINOv2 (Oquab et al. 2024, arXiv:2304.07193) has the same network under other names, and a position
for the class token, which is zero here. Its code builds it with ``ffn_layer="swiglufused"``,
``num_register_tokens`` as they are, and ``block_chunks=0``.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from adios_tme.files import replacing
from adios_tme.models.vit import VisionTransformer

PREFIX = "backbone."
#: Names here and there.
NAMES = (
    (re.compile(r"^reg_token$"), "register_tokens"),
    (re.compile(r"\.mlp\.fc1\."), ".mlp.w12."),
    (re.compile(r"\.mlp\.fc2\."), ".mlp.w3."),
)


def write_dinov2(encoder: VisionTransformer, path: Path) -> None:
    """Write ``{"teacher": {"backbone.NAME": weight}}``; the file is whole or as it was.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {f"{PREFIX}{name}": weight for name, weight in dinov2_weights(encoder).items()}
    with replacing(path) as partial:
        torch.save({"teacher": weights}, partial)


def dinov2_weights(encoder: VisionTransformer) -> dict[str, Tensor]:
    """The weights under DINOv2's names, on the host."""
    weights = {"mask_token": torch.zeros(1, encoder.embed_dim)}
    for name, weight in encoder.state_dict().items():
        for ours, theirs in NAMES:
            name = ours.sub(theirs, name)
        weights[name] = weight.detach().cpu().clone()
    positions = weights["pos_embed"]
    weights["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return weights
