"""A student that is a network of timm's: trained, resumed, exported, embedded with, probed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from adios_tme import load_encoder
from adios_tme.run_folder.checkpoints import read_checkpoint
from adios_tme.training.loop import run_training
from tests.factories import as_flags, make_dataset, run_main, tiny_config, tiny_settings

ARCH = "timm:test_resnet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four iterations, and of what it was trained on."""
    folder = tmp_path_factory.mktemp("timm")
    make_dataset(folder / "data")
    run_training(tiny_config(folder / "data", folder / "run", arch=ARCH, augment="full"))
    return folder


def test_it_resumes_to_the_same_weights(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(folder / "run" / "checkpoint_iter_00000002.pth", again / "checkpoint.pth")
    shutil.copy(folder / "run" / "config.yaml", again)
    settings = tiny_settings(folder / "data", again, arch=ARCH, augment="full")
    assert "Resumed" in run_main(capfd, 0, "train", *as_flags(settings)).err
    straight, resumed = (
        read_checkpoint(path / "checkpoint.pth")["student"] for path in (folder / "run", again)
    )
    assert any("running_mean" in name for name in straight)
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name


def test_what_is_exported_loads_in_stock_timm(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    run_main(capfd, 0, "export", folder / "run", out, "--what", "encoder", "--format", "timm")
    stock = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0).eval()
    images = torch.randn(2, 3, 32, 32)
    encoder = load_encoder(folder / "run")
    with torch.no_grad():
        expected = encoder(images)
        torch.testing.assert_close(stock(images), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(load_encoder(out)(images), expected, rtol=0, atol=1e-5)
    card = (out / "README.md").read_text()
    assert "test_resnet encoder of H&E patches" in card
    assert "embed_dim" not in card
    assert json.loads((out / "config.json").read_text())["pretrained_cfg"]["mean"][0] == 0.6816


def test_features_are_those_of_the_encoder(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("embed", folder / "run", "--data-path", folder / "data", "--no-coords", "true")
    options = ("--patch-size-px", "448", "--output", tmp_path / "features")
    said = run_main(capfd, 2, *words, *options).err
    assert "has no class token, which pool=cls needs. Use --pool mean." in said
    run_main(capfd, 0, *words, *options, "--pool", "mean")
    with h5py.File(next((tmp_path / "features").rglob("*.h5"))) as file:
        assert file["features"].shape[1] == load_encoder(folder / "run").embed_dim


def test_it_is_probed(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("dark", "light")):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for image in range(6):
            pixels = np.full((32, 32, 3), 60 + 120 * number + image, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "classes" / name / f"s{image}.png")
    words = ("benchmark", "probe", folder / "run", "--train", tmp_path / "classes")
    said = run_main(capfd, 0, *words, "--output", tmp_path / "probe")
    assert "iteration 4" in said.out
    refused = run_main(capfd, 2, *words, "--output", tmp_path / "other", "--pool", "mean").err
    assert "pool=mean is for the ViT of this package" in refused


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["export", "RUN", "OUT.pth", "--format", "dinov2"], "format=dinov2"),
        (["export", "RUN", "OUT.onnx", "--what", "encoder", "--format", "onnx"], "format=onnx"),
        (["viz", "features", "RUN", "--images", "IMAGES", "--output", "OUT.png"], "viz features"),
    ],
)
def test_what_needs_our_vit_says_so(
    words: list[str],
    what: str,
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    places: dict[str, Any] = {"RUN": folder / "run", "IMAGES": folder / "data"}
    given = [places.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in words]
    said = run_main(capfd, 2, *given).err
    assert f"{what} is for the ViT of this package" in said
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_not_there_leaves_no_trace(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings(folder / "data", tmp_path / "run", arch="timm:no_such_network")
    said = run_main(capfd, 2, "train", *as_flags(settings)).err
    assert "timm:no_such_network: timm" in said
    assert not (tmp_path / "run").exists()


def test_what_a_step_costs_is_not_guessed(capfd: pytest.CaptureFixture[str]) -> None:
    words = ("benchmark", "throughput", "--arch", ARCH, "--mask-model-type", "adios")
    assert (
        "what a step costs on paper is known for this package's"
        in run_main(capfd, 2, *words, "--device", "cpu").err
    )
