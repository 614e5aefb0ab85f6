"""Any encoder as a function from pixels to features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from adios_tme import load_encoder
from adios_tme.config.commands.embed import FeatureConfig, Pool
from adios_tme.errors import CheckpointError, ConfigError
from adios_tme.export.timm import ExportedEncoder, write_timm
from adios_tme.inference.embed import timm_models
from adios_tme.inference.embed.encoder import FeatureEncoder, load_feature_encoder, name_of
from tests.factories import untrained_run

CPU = torch.device("cpu")
MEAN, STD = (0.6816, 0.5640, 0.7232), (0.1617, 0.1714, 0.1389)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)


def load(source: str | Path, **settings: Any) -> FeatureEncoder:
    return load_feature_encoder(str(source), FeatureConfig(**settings), CPU)


def by_hand(tokens: Tensor, num_registers: int) -> dict[Pool, Tensor]:
    cls, mean = tokens[:, 0], tokens[:, 1 + num_registers :].mean(dim=1)
    return {"cls": cls, "mean": mean, "cls_mean": torch.cat([cls, mean], dim=1)}


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("pool", ["cls", "mean", "cls_mean"])
def test_a_run_and_its_export_give_the_pooled_tokens(
    tmp_path: Path, images: Tensor, pool: Pool, registers: int
) -> None:
    run = untrained_run(tmp_path / "run", num_register_tokens=registers)
    network = load_encoder(run)
    write_timm(ExportedEncoder(network, MEAN, STD), tmp_path / "export")
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        expected = by_hand(network((images / 255 - mean) / std), registers)[pool]
    for source in (run, run / "checkpoint.pth", tmp_path / "export"):
        encoder = load(source, pool=pool)
        found = encoder(images)
        assert found.dtype == torch.float32
        assert found.shape[1] == encoder.dim
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert encoder.img_size == 32
        assert encoder.mean == pytest.approx(MEAN)


def test_lower_precision_is_near(tmp_path: Path, images: Tensor) -> None:
    run = untrained_run(tmp_path / "run")
    exact, rough = load(run)(images), load(run, precision="bf16")(images)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1


def test_the_digest_tells_weights_apart_and_not_where_they_lie(tmp_path: Path) -> None:
    run, other = untrained_run(tmp_path / "run"), untrained_run(tmp_path / "other", seed=7)
    (tmp_path / "moved").mkdir()
    (run / "checkpoint.pth").rename(tmp_path / "moved" / "checkpoint.pth")
    digest = load(tmp_path / "moved").digest()
    assert load(tmp_path / "moved", pool="mean").digest() == digest
    assert load(other).digest() != digest


@pytest.fixture
def at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], nn.Module]:
    """Gives weights to a model of timm's as if its cache had them; the network has them, too."""

    def give(name: str) -> nn.Module:
        network: nn.Module = timm.create_model(name, pretrained=False)
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        monkeypatch.setattr(timm_models, "_cached_weights", lambda _: str(tmp_path / "weights.pth"))
        return network.eval()

    return give


def test_a_model_of_timm_is_normalised_and_pooled_as_its_settings_say(
    at_hand: Callable[[str], Any],
) -> None:
    network = at_hand("test_vit")
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        tokens = network.forward_features((images / 255 - 0.5) / 0.5)
    for pool, expected in by_hand(tokens, 0).items():
        found = load("timm:test_vit", pool=pool)
        torch.testing.assert_close(found(images), expected, rtol=0, atol=1e-5)
        assert found.dim == expected.shape[1]


def test_a_network_without_tokens_has_the_mean_alone(at_hand: Callable[[str], Any]) -> None:
    network = at_hand("test_resnet")
    encoder = load("timm:test_resnet", pool="mean")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = network.forward_features(encoder.normalise(images))
    torch.testing.assert_close(encoder(images), maps.mean((2, 3)), rtol=0, atol=1e-5)
    assert encoder.dim == maps.shape[1]
    with pytest.raises(ConfigError) as found:
        load("timm:test_resnet")
    assert str(found.value) == (
        "timm:test_resnet: has no class token, which pool=cls needs. Use --pool mean."
    )


def test_channels_that_come_last_are_averaged_over_places(at_hand: Callable[[str], Any]) -> None:
    network = at_hand("test_mambaout")
    encoder = load("timm:test_mambaout", pool="mean")
    images = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        maps = network.forward_features(encoder.normalise(images))
    torch.testing.assert_close(encoder(images), maps.mean((1, 2)), rtol=0, atol=1e-5)
    assert encoder.dim == maps.shape[3]


def test_the_norm_that_follows_a_mean_in_timm_follows_it_here(
    at_hand: Callable[[str], Any],
) -> None:
    network = at_hand("test_vit2")  # a register and no class token
    network.reset_classifier(0)
    encoder = load("timm:test_vit2", pool="mean")
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(encoder.normalise(images))
    torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="has no class token, which pool=cls_mean needs"):
        load("timm:test_vit2", pool="cls_mean")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("timm:vit_of_nobody", "has no such model. See timm.list_models(pretrained=True)."),
        ("timm:vit_tiny_patch16_224", "its weights are not on this machine, and nothing is"),
        ("timm:vit_tiny_patch16_224.no_such_tag", "its weights are not on this machine"),
        ("nowhere", "nowhere"),
    ],
)
def test_what_is_not_at_hand_is_one_message(
    source: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError) as found:
        load(source)
    assert text in str(found.value)


def test_weights_in_the_cache_of_the_hub_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = timm_models._cached_weights("vit_tiny_patch16_224")
    assert found == str(snapshot / "model.safetensors")


def test_a_folder_of_something_else_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"timm cannot load it \(.+\)\. Export it again"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("timm:vit_base.augreg", "vit_base.augreg"),
        ("runs/my run!", "my_run_"),
        ("runs/.hidden", "hidden"),
    ],
)
def test_an_encoder_is_called_as_its_source(source: str, name: str) -> None:
    assert name_of(source) == name


def test_a_checkpoint_is_called_by_its_run_and_iteration(tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    assert name_of(str(run / "checkpoint.pth")) == "run"
    assert name_of(str(run / "checkpoint_iter_00000000.pth")) == "run_iter_00000000"
