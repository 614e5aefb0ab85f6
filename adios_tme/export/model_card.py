"""The README of an exported folder: what the encoder is, how it was made, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

#: What a card tells of the settings, by section.
TOLD: Mapping[str, tuple[str, ...]] = {
    "model": ("arch", "patch_size", "embed_dim", "depth", "num_heads", "num_register_tokens"),
    "data": ("img_size", "batch_size_per_gpu", "augment"),
    "mask": ("mask_model_type", "num_masks", "crops_per_mask", "mask_source"),
    "loss": ("alpha_sparsity", "sparsity_penalty_type", "initial_temp", "final_temp"),
    "optim": ("optimizer_type", "lr", "weight_decay", "total_iterations"),
}

TIMM = """import timm
import torch

encoder = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0).eval()
data = timm.data.resolve_model_data_config(encoder)  # size, mean and std
with torch.no_grad():
    features = encoder(torch.zeros(1, *data["input_size"]))  # normalised images -> (1, D)
"""
OLD_TIMM = """import json
from pathlib import Path

import timm

folder = Path("FOLDER")
sizes = json.loads((folder / "config.json").read_text())["model_args"]
encoder = timm.create_model(
    "vit_giant_patch14_reg4_dinov2",
    num_classes=0,
    checkpoint_path=str(folder / "model.safetensors"),
    **sizes,
)
"""
OURS = """from pathlib import Path

import adios_tme
import torch

encoder = adios_tme.load_encoder(Path("FOLDER"))
with torch.no_grad():
    tokens = encoder(torch.zeros(1, 3, SIDE, SIDE))  # (1, 1 + registers + patches, D)
"""
TRIDENT = """import timm
import torch
from torchvision import transforms
from trident.patch_encoder_models import CustomInferenceEncoder

encoder = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0).eval()
data = timm.data.resolve_model_data_config(encoder)
steps = [
    transforms.Resize(data["input_size"][1:]),
    transforms.ToTensor(),
    transforms.Normalize(data["mean"], data["std"]),
]
custom = CustomInferenceEncoder(
    enc_name="adios_tme",
    model=encoder,
    transforms=transforms.Compose(steps),
    precision=torch.float32,
)
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from."""

    iteration: int
    samples_seen: int
    version: str
    settings: Mapping[str, Any]
    """The resolved settings of the run, by section."""
    licence: str | None = None


def model_card(facts: CardFacts) -> str:
    """Markdown with a head that hubs read."""
    head = {"library_name": "timm", "tags": ["image-feature-extraction", "histopathology", "adios"]}
    if facts.licence:
        head["license"] = facts.licence
    side = str(facts.settings["data"]["img_size"])
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        "# ViT encoder of H&E patches, trained by adversarial masking (ADIOS)\n",
        _story(facts),
        f"## Settings\n\n{_settings(facts.settings)}",
        f"## Load it\n\nWith timm 1.0.16 or newer:\n\n{_code(TIMM)}",
        f"With older versions of timm:\n\n{_code(OLD_TIMM)}",
        f"With adios_tme:\n\n{_code(OURS.replace('SIDE', side))}",
        f"In TRIDENT (written after its documentation, not run by a test):\n\n{_code(TRIDENT)}",
        "## Cite\n\nShi, Siddharth, Torr, Kosiorek: Adversarial Masking for Self-Supervised "
        "Learning. ICML 2022, [arXiv:2201.13100](https://arxiv.org/abs/2201.13100).\n",
    ]
    return "\n".join(parts)


def _story(facts: CardFacts) -> str:
    data = facts.settings["data"]
    mean, std = (", ".join(f"{value:g}" for value in data[name]) for name in ("mean", "std"))
    licence = facts.licence or "not stated; ask who trained it"
    lines = (
        f"Trained without labels for {facts.iteration:,} updates on {facts.samples_seen:,} images "
        f"of {data['img_size']} px, by adios_tme {facts.version}.",
        f"Images are normalised with mean ({mean}) and standard deviation ({std}), on a scale from "
        f"0 to 1.",
        f"Licence of the weights: {licence}.",
    )
    return "\n\n".join(lines) + "\n"


def _settings(settings: Mapping[str, Any]) -> str:
    rows = [
        f"| {name} | {settings[section][name]} |"
        for section, names in TOLD.items()
        for name in names
        if name in settings.get(section, {})
    ]
    return "\n".join(["| setting | value |", "|---|---|", *rows, ""])


def _code(text: str) -> str:
    return f"```python\n{text}```\n"
