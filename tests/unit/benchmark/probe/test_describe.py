"""Features of images: colours, encoders of ours, and timm's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adios_tme.benchmark.probe.class_folders import ImageReader, read_class_folders
from adios_tme.benchmark.probe.describe import (
    MOST_STAIN,
    NUM_BINS,
    ColourStatistics,
    EncoderFeatures,
    Reading,
    features_of,
    timm_features,
)
from adios_tme.data.resize import resize_image
from adios_tme.data.stain import stain_amounts
from adios_tme.errors import CheckpointError
from adios_tme.export.timm import ExportedEncoder, write_timm
from adios_tme.models.vit import VisionTransformer
from adios_tme.pretrained import TrainedEncoder
from tests.factories import png

MEAN, STD = (0.6, 0.5, 0.7), (0.2, 0.3, 0.1)


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_colour_statistics_are_what_numpy_says() -> None:
    image = pixels(7, 9)
    found = ColourStatistics().embed([ColourStatistics().prepare(image)])
    stains = stain_amounts(image)
    expected = [
        *(image / 255).reshape(-1, 3).mean(axis=0),
        *(image / 255).reshape(-1, 3).std(axis=0),
        *stains.reshape(-1, 3).mean(axis=0),
        *stains.reshape(-1, 3).std(axis=0),
    ]
    for stain in range(3):
        capped = np.minimum(stains[..., stain], MOST_STAIN - 1e-6)  # all above is in the last bin
        counts, _ = np.histogram(capped, NUM_BINS, (0, MOST_STAIN))
        expected += (counts / 63).tolist()
    np.testing.assert_allclose(found, [expected], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def trained() -> TrainedEncoder:
    torch.manual_seed(0)
    encoder = VisionTransformer(16, 8, 64, 2, 1, num_register_tokens=2).eval()
    return TrainedEncoder(encoder, 1, 16, MEAN, STD, {})


def test_images_are_seen_as_in_training(trained: TrainedEncoder) -> None:
    images = [pixels(20, 30), pixels(16, 16, seed=1)]
    resized = np.stack([resize_image(image, 16) for image in images])
    normalised = (resized / 255 - np.array(MEAN)) / np.array(STD)
    with torch.no_grad():
        tokens = trained.encoder(torch.tensor(normalised).float().permute(0, 3, 1, 2))
    expected: dict[Any, torch.Tensor] = {
        "cls": tokens[:, 0],
        "mean": tokens[:, 3:].mean(dim=1),
        "cls_mean": torch.cat([tokens[:, 0], tokens[:, 3:].mean(dim=1)], dim=1),
    }
    for pool, features in expected.items():
        describer = features_of(trained, pool, "cpu")
        found = describer.embed([describer.prepare(image) for image in images])
        np.testing.assert_allclose(found, features.numpy(), atol=1e-5)


def test_a_timm_encoder_is_taken_as_it_is(trained: TrainedEncoder, tmp_path: Path) -> None:
    write_timm(ExportedEncoder(trained.encoder, MEAN, STD), tmp_path / "exported")
    describer, model = timm_features(f"timm:local-dir:{tmp_path / 'exported'}", "cpu")
    own = features_of(trained, "cls", "cpu")
    found, expected = (each.embed([each.prepare(pixels(20, 30))]) for each in (describer, own))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not model.training


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_model", r"timm [\d.]+ has no such model\. See timm\.list_models"),
        ("vit_small_patch16_224.dino", r"the weights are not on this machine \(\w+\)\. Call timm"),
        ("local-dir:nowhere", r"the weights are not on this machine \(\w+\)\. Call timm"),
    ],
)
def test_a_timm_encoder_that_is_not_there_is_one_message(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "socket", None)  # nobody is asked
    with pytest.raises(CheckpointError, match=rf"^timm:{name}: {text}"):
        timm_features(f"timm:{name}", "cpu")


@pytest.fixture
def reading() -> Iterator[Reading]:
    with ThreadPoolExecutor(3) as threads:
        yield Reading(4, threads, 3)


@pytest.mark.parametrize("num_images", [1, 4, 30])
def test_features_keep_the_order_of_images(
    num_images: int, reading: Reading, tmp_path: Path
) -> None:
    for number in range(num_images):
        path = tmp_path / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(4, number))
    samples = read_class_folders(tmp_path)
    seen: list[int] = []
    found = reading.features(
        ColourStatistics(), ImageReader(samples), len(samples), "it", lambda: seen.append(1)
    )
    means = [pixels(4, 4, seed=int(name[2:4])).mean() / 255 for name in samples.names]
    np.testing.assert_allclose(found[:, :3].mean(axis=1), means, rtol=1e-5)
    assert len(seen) == num_images


def test_features_that_are_not_finite_are_named(reading: Reading, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png(4))
    samples = read_class_folders(tmp_path)
    broken = EncoderFeatures(lambda x: x.flatten(1) * float("nan"), 4, MEAN, STD, "cpu")
    with pytest.raises(CheckpointError, match=r"run/x\.pth: its features are not finite\. Use a"):
        reading.features(broken, ImageReader(samples), 1, "run/x.pth", lambda: None)
