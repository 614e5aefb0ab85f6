"""What every mask model keeps, and what is special about each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from adios_tme.benchmark.throughput.counting import kept_bytes
from adios_tme.config.model import MaskConfig
from adios_tme.distributed.world import World
from adios_tme.errors import CheckpointError
from adios_tme.models.mask_models.unet import AdiosUNet
from adios_tme.models.mask_models.vit_unet import ViTUNet
from adios_tme.models.resolve import resolve
from adios_tme.models.vit import VisionTransformer
from adios_tme.pretrained import init_mask_encoder
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.training.state import Run
from tests.factories import VIT_UNET, run_of, tiny_config

CPU = torch.device("cpu")


def vit_unet(patch_size: int = 8, img_size: int = 32, **options: object) -> ViTUNet:
    encoder = VisionTransformer(img_size, patch_size, embed_dim=32, depth=4, num_heads=2)
    return ViTUNet(encoder, patch_size, num_masks=3, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (AdiosUNet(32, 3), 32),
        (AdiosUNet(48, 3), 48),
        (AdiosUNet(72, 3, norm="in"), 72),
        (AdiosUNet(16, 3, fbase=8, norm="no"), 16),
        (vit_unet(8), 32),
        (vit_unet(16), 48),
        (vit_unet(14, img_size=56), 56),
        (vit_unet(4), 24),
        (vit_unet(16, decoder_width=64), 48),
        (vit_unet(8, decoder_width=128), 32),
    ],
)
def test_masks_share_every_pixel_and_everything_learns(network: nn.Module, size: int) -> None:
    masks = network(torch.randn(2, 3, size, size))
    assert masks.shape == (2, 3, size, size)
    assert masks.dtype == torch.float32
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(2, size, size))
    masks[:, 0].square().sum().backward()
    silent = [name for name, weight in network.named_parameters() if weight.grad is None]
    # The mask head reads patch features: class token and registers act through attention alone.
    assert silent == []


@pytest.mark.parametrize("kind", ["adios", "vit_unet"])
def test_recomputing_changes_no_gradient_and_keeps_less(kind: str) -> None:
    images = torch.randn(2, 3, 32, 32)
    grads, kept = [], []
    for again in (False, True):
        torch.manual_seed(1)
        if kind == "adios":
            network: nn.Module = AdiosUNet(32, 3, grad_checkpointing=again)
        else:
            encoder = VisionTransformer(32, 8, 32, 4, 2, grad_checkpointing=again)
            network = ViTUNet(encoder, 8, dropout=0.3, grad_checkpointing=again)
        network.train()
        kept.append(kept_bytes(network, lambda network=network: network(images)))  # type: ignore[misc]
        torch.manual_seed(2)
        network(images)[:, 0].square().sum().backward()
        grads.append([weight.grad for weight in network.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert kept[1] < 0.7 * kept[0]


def test_the_unet_is_tied_to_its_size() -> None:
    with pytest.raises(ValueError, match="for a U-Net of 32 px"):
        AdiosUNet(32)(torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="too small"):
        AdiosUNet(8)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_masks_are_shared_where_two_forward_passes_do_not_differ(dropout: float) -> None:
    network, images = vit_unet(dropout=dropout), torch.randn(1, 3, 32, 32)
    masks = MaskConfig(mask_model_type="vit_unet", mask_dropout=dropout)
    differ = bool((network.train()(images) != network(images)).any())
    assert resolve(run_of(mask=masks), CPU).shares_masks is not differ
    assert (network.eval()(images) == network(images)).all()
    assert resolve(run_of(mask=MaskConfig(mask_model_type="adios")), CPU).shares_masks
    for choice, shared in (("shared", True), ("separate", False)):
        asked = masks.model_copy(update={"mask_forward": choice})
        assert resolve(run_of(mask=asked), CPU).shares_masks is shared


def test_a_frozen_encoder_does_not_learn_and_does_not_drop() -> None:
    network = vit_unet(freeze_encoder=True).train()
    assert not network.encoder.training
    network(torch.randn(1, 3, 32, 32))[:, 0].sum().backward()
    assert all(weight.grad is None for weight in network.encoder.parameters())
    assert any(weight.grad is not None for weight in network.parameters())


def test_the_encoder_starts_from_a_student_at_another_size() -> None:
    source = VisionTransformer(64, 8, embed_dim=32, depth=4, num_heads=2)
    network = vit_unet()
    assert network.load_encoder(source.state_dict()) == []
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.encoder(image), source(image), rtol=1e-4, atol=1e-5)


def test_the_encoder_starts_from_the_student_of_a_run(tmp_path: Path) -> None:
    world = World(0, 1, 0, 1, torch.device("cpu"))
    shape = {"embed_dim": 64, "num_heads": 1, "depth": 4}
    student_run = Run.build(tiny_config(tmp_path, tmp_path, **shape), world)
    path = write_checkpoint(student_run.state(), tmp_path)
    run = Run.build(tiny_config(tmp_path, tmp_path, seed=5, **VIT_UNET), world)
    assert isinstance(run.bare_mask_model, ViTUNet)
    init_mask_encoder(run.bare_mask_model, path)
    expected = student_run.bare_student.encoder.state_dict()
    for name, weight in run.bare_mask_model.encoder.state_dict().items():
        assert torch.equal(weight, expected[name]), name

    deep = VIT_UNET | {"mask_encoder_depth": 8}
    other = Run.build(tiny_config(tmp_path, tmp_path, **deep), world)
    assert isinstance(other.bare_mask_model, ViTUNet)
    with pytest.raises(CheckpointError, match="does not fit the mask model's encoder"):
        init_mask_encoder(other.bare_mask_model, path)
