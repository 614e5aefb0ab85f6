"""Encoders of timm's in the place of our ViT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from adios_tme.config.train import TrainConfig
from adios_tme.distributed.world import World
from adios_tme.errors import ConfigError
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.timm_encoder import TimmEncoder
from adios_tme.training.start import check_timm
from adios_tme.training.state import Run
from adios_tme.training.step import train_step
from tests.factories import tiny_config

WORLD = World(0, 1, 0, 1, torch.device("cpu"))


def test_features_are_those_of_the_network() -> None:
    encoder = TimmEncoder("test_efficientnet", [32]).eval()
    stock = timm.create_model("test_efficientnet", num_classes=0).eval()
    stock.load_state_dict(encoder.network.state_dict())
    small, large = torch.randn(2, 3, 32, 32), torch.randn(3, 3, 64, 64)
    expected = torch.cat([stock(small), stock(large)])
    torch.testing.assert_close(encoder.class_tokens([small, large]), expected)
    assert encoder.embed_dim == expected.shape[1]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_images_are_taken_in_the_size_of_training_and_of_crops(name: str) -> None:
    encoder = TimmEncoder(name, [64, 32])
    views = [torch.randn(2, 3, 64, 64), torch.randn(2, 3, 32, 32)]
    assert encoder.class_tokens(views).shape == (4, encoder.embed_dim)


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("no_such_network", [32], "arch=timm:no_such_network: timm .* has no such model"),
        ("test_vit", [40], r"does not take images of 40 px \(.*\)\. Use another --img-size"),
    ],
)
def test_what_cannot_be_had_is_told(name: str, sizes: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TimmEncoder(name, sizes)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"arch": "timm:"}, "expected one of 'vit_tiny'.* or timm:NAME, got 'timm:'"),
        ({"depth": 3}, "depth=3 would be ignored: arch=timm:test_resnet has its own"),
        ({"compile": "on"}, "compile=on cannot be had: arch=timm:test_resnet is not this"),
        ({"grad_checkpointing": True}, "grad_checkpointing=True cannot be had"),
        ({"reconstruction_weight": 0.5}, "reconstruction_weight=0.5 cannot be had"),
        ({"patch_size": 8}, "patch_size=8 cannot be had"),
    ],
)
def test_settings_of_our_vit_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config(Path(), Path(), **{"arch": "timm:test_resnet"} | flags)


def test_nothing_is_skipped_unless_asked_for() -> None:
    assert TrainConfig(data_path=["patches"]).model.drop_path_rate == 0.4
    assert TrainConfig(data_path=["patches"], arch="timm:test_vit").model.drop_path_rate == 0
    asked = tiny_config(Path(), Path(), arch="timm:test_vit", drop_path_rate=0.3)
    modules = Run.build(asked, WORLD).bare_student.encoder.modules()
    assert max(getattr(each, "drop_prob", 0.0) for each in modules) == pytest.approx(0.3)


@pytest.mark.parametrize("under", [{"demo": True}, {"preset": "laptop", "data_path": ["patches"]}])
def test_presets_ask_no_sizes_of_a_vit_of_it(under: dict[str, Any]) -> None:
    config = TrainConfig(arch="timm:test_resnet", **under)
    assert config.model.tme_output_dim == 64
    assert config.model.embed_dim == 0
    with pytest.raises(ConfigError, match="depth=2 would be ignored"):
        TrainConfig(arch="timm:test_resnet", depth=2, **under)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="depth=0 is too small"):
        TrainConfig(data_path=["patches"], depth=0)


def test_the_patches_of_a_vit_unet_are_its_own() -> None:
    flags = {"arch": "timm:test_resnet", "mask_model_type": "vit_unet", "patch_size": 8}
    run = Run.build(tiny_config(Path(), Path(), **flags, mask_encoder_depth=4), WORLD)
    assert isinstance(run.bare_mask_model, ViTUNet)
    assert run.bare_mask_model.encoder.patch_embed.patch_size == 8


def test_batch_norms_and_passes_do_not_go_together() -> None:
    flags = {"batch_size_per_gpu": 2, "global_batch_size": 4}
    check_timm(tiny_config(Path(), Path(), arch="timm:test_vit", **flags), WORLD)
    with pytest.raises(
        ConfigError, match="takes 2 passes, and the batch norms of arch=timm:test_r"
    ):
        check_timm(tiny_config(Path(), Path(), arch="timm:test_resnet", **flags), WORLD)


def test_the_mask_half_leaves_the_statistics_alone() -> None:
    run = Run.build(tiny_config(Path(), Path(), arch="timm:test_resnet"), WORLD)
    encoder = run.bare_student.encoder
    seen = []
    run.update_student.optimizer.register_step_post_hook(
        lambda *_: seen.append(encoder.state_dict()["network.conv1.1.running_mean"].clone())
    )
    train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    assert torch.equal(encoder.state_dict()["network.conv1.1.running_mean"], seen[0])
    assert seen[0].abs().sum() > 0


def test_a_teacher_takes_over_the_statistics() -> None:
    flags = {"arch": "timm:test_resnet", "objective": "byol", "predictor_hidden_dim": 8}
    run = Run.build(tiny_config(Path(), Path(), **flags), WORLD)
    train_step(run, torch.randn(4, 3, 32, 32), run.schedule())
    teacher = dict(run.objective.named_buffers())
    student = {f"teacher.{name}": value for name, value in run.bare_student.named_buffers()}
    assert student
    for name, value in student.items():
        assert torch.equal(teacher[name], value)
