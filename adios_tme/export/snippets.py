"""The code by which model cards say how an export is loaded; FOLDER and SIDE stand for its own."""

from __future__ import annotations

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
).eval()
"""
OURS = """from pathlib import Path

import adios_tme
import torch

encoder = adios_tme.load_encoder(Path("FOLDER"))
with torch.no_grad():
    tokens = encoder(torch.zeros(1, 3, SIDE, SIDE))  # (1, 1 + registers + patches, D)
"""
PLAIN_TORCH = """import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

folder = Path("FOLDER")
sizes = json.loads((folder / "config.json").read_text())["model_args"]
weights = load_file(folder / "model.safetensors")


def linear(x, name):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(x, name):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


@torch.no_grad()
def encoder(images):  # normalised, of the training size -> (B, D)
    projection = [weights[f"patch_embed.proj.{name}"] for name in ("weight", "bias")]
    x = F.conv2d(images, *projection, stride=sizes["patch_size"]).flatten(2).mT
    x = x + weights["pos_embed"]
    first = [weights[name] for name in ("cls_token", "reg_token") if name in weights]
    x = torch.cat([*(token.expand(len(x), -1, -1) for token in first), x], dim=1)
    for block in (f"blocks.{number}" for number in range(sizes["depth"])):
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        qkv = qkv.unflatten(-1, (3, sizes["num_heads"], -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        x = x + weights[f"{block}.ls1.gamma"] * linear(attended, f"{block}.attn.proj")
        gate, value = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1").chunk(2, dim=-1)
        hidden = F.silu(gate) * value
        x = x + weights[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]
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
LAZYSLIDE = """import lazyslide as zs
import timm
import torch
from torchvision.transforms import v2
from wsidata import open_wsi

encoder = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0).eval()
data = timm.data.resolve_model_data_config(encoder)
steps = [
    v2.ToImage(),
    v2.Resize(data["input_size"][1:]),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize(data["mean"], data["std"]),
]
wsi = open_wsi("slide.svs")
zs.pp.find_tissues(wsi)
zs.pp.tile_tissues(wsi, tile_px=SIDE, mpp=0.5)  # microns per pixel of the training patches
zs.tl.feature_extraction(wsi, model=encoder, model_name="adios_tme", transform=v2.Compose(steps))
features = wsi["adios_tme_tiles"].X
"""
#: Filled by ``str.format``.
EVA = """export MODEL_NAME=timm/{architecture}
export MODEL_EXTRA_KWARGS='{{model_name: "local-dir:FOLDER", pretrained: true}}'
export IN_FEATURES={width} RESIZE_DIM={side} NORMALIZE_MEAN='{mean}' NORMALIZE_STD='{std}'
eva predict_fit --config configs/vision/pathology/offline/classification/bach.yaml
"""
MASKS = """import torch

from adios_tme import MaskGenerator

masks = MaskGenerator.from_pretrained("FOLDER")  # .to("cuda") moves it
images = torch.zeros(2, 3, 300, 400, dtype=torch.uint8)  # or float from 0 to 1, any size
drawn = masks(images)  # (2, N, 300, 400), adding up to one over N; NumPy in, NumPy out
"""
AUGMENT = """import numpy as np

from adios_tme import MaskAugment, MaskGenerator

augment = MaskAugment(MaskGenerator.from_pretrained("FOLDER"))
image = np.zeros((300, 400, 3), np.uint8)  # or a Pillow image, a tensor, a batch
views = augment(image)  # one masked view for each mask, like the image
"""
