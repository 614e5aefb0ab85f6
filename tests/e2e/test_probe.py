"""``adios-tme benchmark probe``: its page, run as it stands, and mistakes as users make them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adios_tme.benchmark.probe import classifiers
from adios_tme.distributed.world import World
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.training.state import Run
from tests.factories import run_command, run_main, tiny_config

PAGE = (Path(__file__).parents[2] / "docs" / "probe.md").read_text()
COMMANDS = re.findall(r"^\$ (adios-tme .*)$", PAGE.replace("\\\n", ""), re.M)


def make_classes(folder: Path, num_each: int = 6) -> Path:
    """Two classes, dark and pale, on two slides each and on one that both share."""
    rng = np.random.default_rng(0)
    for name, colour, slides in (
        ("normal", 190, ("tumor_004", "tumor_005", "tumor_064")),
        ("tumor", 90, ("tumor_001", "tumor_002", "tumor_064")),
    ):
        (folder / name).mkdir(parents=True)
        for number in range(num_each):
            pixels = rng.integers(colour - 60, colour + 60, (16, 16, 3)).astype(np.uint8)
            place = f"{slides[number % 3]}_{number}_{number}.png"
            Image.fromarray(pixels).save(folder / name / place)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two checkpoints, and sets by the names that the page has."""
    folder = tmp_path_factory.mktemp("probe")
    world = World(0, 1, 0, 1, torch.device("cpu"))
    run = Run.build(tiny_config(folder, folder, img_size=16), world)
    (folder / "run").mkdir()
    for _ in range(2):
        run.advance()
        write_checkpoint(run.state(), folder / "run")
    for name in ("classes/camelyon16_lymphnode", "train_set", "test_set"):
        make_classes(folder / name)
    return folder


def test_the_page_is_true(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(classifiers, "STRENGTHS", (1e-2, 1.0))  # fits take most of the time
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    subprocess.run([sys.executable, "-c", block], check=True, timeout=60)
    assert len(COMMANDS) == 6
    said = [run_main(capsys, 0, *shlex.split(line)[1:]).out for line in COMMANDS]
    assert "Held out by patch: 12 of 12 names tell no slide" in said[0]
    assert "Slides stand in both parts" not in said[1]  # names tell no slide
    assert "logistic regression on given features reaches a balanced accuracy of" in said[2]
    assert "timm:local-dir:encoder" in said[4]
    assert "Held out by patch" not in said[5]
    for folder in ("probe", "probe_two_folders", "probe_features", "probe_rivals", "scores"):
        for suffix in ("json", "csv", "png", "svg"):
            assert (place / folder / f"probe.{suffix}").is_file()
    saved = json.loads((place / "scores" / "probe.json").read_text())
    slides = [saved["sets"][0]["protocol"][f"num_{part}_slides"] for part in ("train", "test")]
    assert sum(slides) == 5
    facts = set(saved["sets"][0]) | set(saved["sets"][0]["checkpoints"][0]["scores"]["knn"])
    assert facts >= {"protocol", "truth", "predicted", "balanced_accuracy", "macro_f1", "auroc"}
    numbers = saved["sets"][0]["rivals"]["colour_statistics"]["scores"]["logistic"]
    assert numbers["balanced_accuracy"]["value"] == 1


def test_the_installed_command_prints_json(place: Path, tmp_path: Path) -> None:
    flags = ("--train", place / "train_set", "--output", tmp_path / "out", "--json")
    found = run_command("benchmark", "probe", place / "run", *flags)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == json.loads((tmp_path / "out" / "probe.json").read_text())


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("run", 2, "train is missing."),
        ("run --train one_class", 1, "one_class: holds only one class (tumor). Give a folder"),
        ("run --train one_image", 1, "one_image: the class tumor has one sample, and each part"),
        ("run --train one_class/tumor", 1, "tumor: holds no folder, so no class. Give a folder"),
        ("run --train empty", 1, "tumor: holds no zip archive, no tar and no image"),
        ("run --train train_set --test other", 1, "it lacks tumor and has tumour beside them."),
        ("run --train train_set --rival timm:no_such", 1, "has no such model"),
        ("run --train train_set --rival vit_tiny", 2, "rival: 'vit_tiny' is no encoder that can"),
        ("run --train train_set --split-by slide", 1, "tells no slide, so that nothing can be"),
        ("run --train train_set --slide-pattern (", 2, "slide_pattern: '(' is not a regular exp"),
        ("run --train train_set --train train_set", 2, "a folder is given twice as --train"),
        ("run --train train_set --test train_set", 2, "train_set is the training and the test"),
        ("run --train a --train b --test c", 2, "2 --train and 1 --test are given"),
        ("run --train a --test b --test-fraction 0.5", 2, "test_fraction=0.5 would be ignored"),
        ("run --train a --test b --split-by patch", 2, "split_by=patch would be ignored"),
        ("--train a --rival timm:x", 2, "rival=timm:x would be ignored: there is no run"),
        ("train_set --train train_set", 1, "train_set: holds no checkpoint. Give a checkpoint"),
        ("run --train train_set --output run/checkpoint.pth/x", 1, "cannot be written"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_no_trace(
    words: str,
    code: int,
    text: str,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(place / "run")
    (tmp_path / "train_set").symlink_to(place / "train_set")
    for folder, counts in (("one_class", (3,)), ("one_image", (1, 3)), ("empty", (0, 1))):
        for name, count in zip(("tumor", "normal"), counts, strict=False):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / folder / name / f"{number}.png")
    make_classes(tmp_path / "other", 2)
    (tmp_path / "other" / "tumor").rename(tmp_path / "other" / "tumour")
    output = [] if "--output" in words else ["--output", "out"]
    said = run_main(capsys, code, "benchmark", "probe", *words.split(), *output)
    assert text in said.err
    assert said.err.count("Error:") == 1
    assert not (tmp_path / "out").exists()
