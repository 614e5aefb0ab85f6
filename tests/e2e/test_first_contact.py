"""What a new user wants first, each in two commands or ten lines, from the documents alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import adios_tme
from adios_tme.inference.embed.features_file import read_features
from tests.factories import run_command

PATCHES = [(slide, x, 512) for slide in ("A12", "B7") for x in range(0, 1024, 256)]
#: As `<slide>_<x>_<y>.jpg` has to be read.
NAMES = r"(?P<slide>.+)_(?P<x>\d+)_(?P<y>\d+)"


def ran(*words: str | Path) -> str:
    found = run_command(*words)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs of 256 px named slide_x_y.jpg, and a run on them."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "patches").mkdir()
    rng = np.random.default_rng(0)
    for slide, x, y in PATCHES:
        pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "patches" / f"{slide}_{x}_{y}.jpg")
    ran(*training(folder, folder / "run"))
    return folder


def training(folder: Path, run: Path, *more: str) -> list[str | Path]:
    given = ("--data-path", folder / "patches", "--output-dir", run, "--batch-size-per-gpu", "4")
    short = ("--total-iterations", "2", "--num-workers", "0", "--img-size", "32")
    return ["train", "--preset", "laptop", *given, *short, *more]


def test_a_folder_of_jpegs_trains(folder: Path) -> None:
    log = (folder / "run" / "train.log").read_text()
    assert "No name in these folders states a size, so all 8 images are taken." in log
    assert "8 patches in 1 folder;" in log


def test_which_mask_is_the_nuclei_is_known_without_labels(folder: Path) -> None:
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    correlation = last["mask_haematoxylin_correlation"]
    assert len(correlation) == 3
    assert int(np.argmax(correlation)) in range(3)


def test_features_with_slide_x_and_y(folder: Path, tmp_path: Path) -> None:
    ran(
        *("embed", folder / "run", "--data-path", folder / "patches", "--num-workers", "0"),
        *("--output", tmp_path, "--name-pattern", NAMES),
    )
    files = {file.stem: read_features(file).coords for file in tmp_path.rglob("*.h5")}
    found = {
        (slide, int(x), int(y))
        for slide, coords in files.items()
        if coords is not None
        for x, y in coords
    }
    assert found == set(PATCHES)


def test_the_encoder_loads_in_timm(folder: Path, tmp_path: Path) -> None:
    ran("export", folder / "run", tmp_path / "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True, num_classes=0)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        ours = adios_tme.load_encoder(folder / "run")(images)[:, 0]
        torch.testing.assert_close(model.eval()(images), ours, rtol=0, atol=1e-5)


def test_more_iterations_at_a_lower_rate(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    said = ran(*training(folder, run, "--total-iterations", "4", "--lr", "1e-4"))
    assert "Resumed" in said
    assert "lr 0.001 -> 0.0001; total_iterations 2 -> 4" in " ".join(said.split())


def test_masks_of_a_large_image(folder: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (250, 300, 3), dtype=np.uint8)
    masks = adios_tme.load_mask_model(folder / "run")(Image.fromarray(pixels))
    assert masks.shape == (3, 250, 300)
    Image.fromarray((masks[0] * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == (300, 250)


@pytest.mark.elastic
def test_two_processes(folder: Path, tmp_path: Path) -> None:
    said = ran(*training(folder, tmp_path / "run", "--nproc-per-node", "2"))
    assert re.search(r"global batch 8 \(4 x 2 ranks\)", " ".join(said.split()))
