"""What the mask model costs is counted once for each network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adios_tme.benchmark.throughput.mask_model_cost import NOT_OF_THE_NETWORK, MaskModelCost
from adios_tme.config.model import MaskConfig
from adios_tme.models.build import build_mask_model
from adios_tme.models.resolve import resolve
from tests.factories import run_of, tiny_config


def cost_of(**flags: Any) -> MaskModelCost:
    return MaskModelCost.of(tiny_config(Path(), Path(), **flags))


@pytest.mark.parametrize(
    "flags", [{"crops_per_mask": 1, "fill": "blur"}, {"embed_dim": 64}, {"lr": 0.1}]
)
def test_runs_with_the_same_network_share_what_was_counted(flags: dict[str, Any]) -> None:
    assert cost_of(**flags) is cost_of()


@pytest.mark.parametrize(
    "flags",
    [{"num_masks": 4}, {"img_size": 48}, {"mask_grad_checkpointing": True}],
)
def test_another_network_is_counted_anew(flags: dict[str, Any]) -> None:
    other = cost_of(**flags)
    assert (other.forward, other.kept_bytes) != (cost_of().forward, cost_of().kept_bytes)


@pytest.mark.parametrize("mask_model", ["adios", "vit_unet"])
def test_a_network_is_built_without_the_settings_that_are_put_aside(mask_model: str) -> None:
    config = run_of(mask=MaskConfig(mask_model_type=mask_model))
    read = MaskConfig.model_fields.keys() - NOT_OF_THE_NETWORK.keys()
    mask: Any = SimpleNamespace(**{name: getattr(config.mask, name) for name in read})
    student: Any = SimpleNamespace(patch_size=8, num_register_tokens=4)
    build_mask_model(mask, student, 32, resolve(config, torch.device("cpu")))
