"""Masks and encoders learnt from H&E patches without labels, by adversarial masking.

Importing the package is light: every name below is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adios_tme.version import __version__ as __version__

_HOMES = {
    "AdiosUNet": "adios_tme.models.mask_models.unet",
    "DatasetIndex": "adios_tme.data.index",
    "LARS": "adios_tme.optim.lars",
    "MaskAugment": "adios_tme.masking.augment",
    "MaskGenerator": "adios_tme.models.mask_models.generator",
    "PatchDataset": "adios_tme.data.dataset",
    "TMEHead": "adios_tme.models.heads",
    "TrainConfig": "adios_tme.config.train",
    "ViTUNet": "adios_tme.models.mask_models.vit_unet",
    "VisionTransformer": "adios_tme.models.vit",
    "build_index": "adios_tme.data.index_builder",
    "load_encoder": "adios_tme.pretrained",
    "load_mask_model": "adios_tme.pretrained",
    "load_student": "adios_tme.pretrained",
    "simclr_loss": "adios_tme.objectives.simclr",
    "sparsity_penalty": "adios_tme.objectives.sparsity",
    "train": "adios_tme.launch.local",
    "train_step": "adios_tme.training.step",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from adios_tme.config.train import TrainConfig as TrainConfig
    from adios_tme.data.dataset import PatchDataset as PatchDataset
    from adios_tme.data.index import DatasetIndex as DatasetIndex
    from adios_tme.data.index_builder import build_index as build_index
    from adios_tme.launch.local import train as train
    from adios_tme.masking.augment import MaskAugment as MaskAugment
    from adios_tme.models.heads import TMEHead as TMEHead
    from adios_tme.models.mask_models.generator import MaskGenerator as MaskGenerator
    from adios_tme.models.mask_models.unet import AdiosUNet as AdiosUNet
    from adios_tme.models.mask_models.vit_unet import ViTUNet as ViTUNet
    from adios_tme.models.vit import VisionTransformer as VisionTransformer
    from adios_tme.objectives.simclr import simclr_loss as simclr_loss
    from adios_tme.objectives.sparsity import sparsity_penalty as sparsity_penalty
    from adios_tme.optim.lars import LARS as LARS
    from adios_tme.pretrained import load_encoder as load_encoder
    from adios_tme.pretrained import load_mask_model as load_mask_model
    from adios_tme.pretrained import load_student as load_student
    from adios_tme.training.step import train_step as train_step


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
