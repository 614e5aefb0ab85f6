"""``adios-tme export --what mask``: the folder, what loads it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import adios_tme
from adios_tme.errors import CheckpointError
from adios_tme.export.snippets import AUGMENT, MASKS
from tests.factories import (
    VIT_UNET,
    make_dataset,
    png,
    run_command,
    run_main,
    tiny_settings,
    untrained_run,
)

FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return untrained_run(tmp_path / "run")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("flags", [{}, VIT_UNET, {"mask_ema": 0.5}], ids=["unet", "vit", "ema"])
def test_the_folder_gives_the_masks_of_the_run(
    flags: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = untrained_run(tmp_path / "run", **flags), tmp_path / "masks"
    said = run_main(capsys, 0, "export", run, out, "--what", "mask", "--licence", "mit")
    assert f'Load it: adios_tme.MaskGenerator.from_pretrained("{out}")' in said.out
    assert names(out) == FILES
    images = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    expected = adios_tme.load_mask_model(run)(images)
    for loaded in (adios_tme.MaskGenerator.from_pretrained(out), adios_tme.load_mask_model(out)):
        assert not loaded.training
        torch.testing.assert_close(loaded(images), expected, rtol=0, atol=1e-6)


def test_the_card_says_how_it_is_loaded(tmp_path: Path) -> None:
    run, out = untrained_run(tmp_path / "run", img_size=200), tmp_path / "masks"
    done = run_command("export", run, out, "--what", "mask", "--format", "folder")
    assert done.returncode == 0, done.stderr
    _, head, body = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "adios_tme"
    found: dict[str, Any] = {}
    for snippet in (MASKS, AUGMENT):
        assert snippet in body
        exec(snippet.replace("FOLDER", str(out)), found)
    assert found["drawn"].shape == (2, 3, 300, 400)
    assert len(found["views"]) == 3
    assert found["views"][0].shape == (300, 400, 3)


def test_other_commands_take_the_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, images = tmp_path / "masks", tmp_path / "images"
    run_main(capsys, 0, "export", run, out, "--what", "mask")
    images.mkdir()
    (images / "one.png").write_bytes(png())
    picture = tmp_path / "masks.png"
    where = ("--checkpoint", out, "--images", images)
    run_main(capsys, 0, "viz", "masks", *where, "--output", picture)
    assert picture.stat().st_size > 10_000
    make_dataset(tmp_path / "patches", num_archives=1)
    second = tmp_path / "second"
    flags = tiny_settings(tmp_path / "patches", second, init_from=out, total_iterations=2)
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    run_main(capsys, 0, "train", *words)
    assert "0 tensors did not fit" in (second / "train.log").read_text()


@pytest.mark.parametrize(
    ("what", "benchmark", "flag"), [("mask", "nuclei", "--labels"), ("encoder", "probe", "--train")]
)
def test_benchmarks_ask_for_the_run_instead(
    what: str,
    benchmark: str,
    flag: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, scores = tmp_path / "out", tmp_path / "scores"
    run_main(capsys, 0, "export", run, out, "--what", what)
    for place in ("images", "labels"):
        (tmp_path / "data" / place).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((32, 32), number, np.uint16)
            Image.fromarray(pixels).save(tmp_path / "data" / place / f"{number}.png")
    where = (flag, tmp_path / "data", "--output", scores)
    said = run_main(capsys, 1, "benchmark", benchmark, out, *where)
    assert f"{out}: is an exported folder, which holds no checkpoint and" in said.err
    assert "Give the run that it came from, or one of its checkpoints." in said.err
    assert said.err.count("Error:") == 1
    assert not scores.exists()


def test_each_folder_is_told_from_the_other(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, encoder = tmp_path / "masks", tmp_path / "encoder"
    run_main(capsys, 0, "export", run, masks, "--what", "mask")
    run_main(capsys, 0, "export", run, encoder)
    with pytest.raises(CheckpointError, match=r"holds no encoder.*--what encoder, or give the run"):
        adios_tme.load_encoder(masks)
    with pytest.raises(CheckpointError, match=r"holds no mask model.*--what mask"):
        adios_tme.load_mask_model(encoder)
    for folder in (masks, encoder):
        with pytest.raises(CheckpointError, match="is an exported folder, which holds no head"):
            adios_tme.load_student(folder)


def damage(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a run's checkpoint again, changed."""
    state = torch.load(run / "checkpoint.pth", weights_only=True)
    change(state)
    for path in run.glob("checkpoint*.pth"):
        torch.save(state, path)


@pytest.mark.parametrize("what", ["mask", "encoder"])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda state: state["config"]["mask"].update(tomorrow=1),
            "has settings that adios_tme 0.1.0 cannot read (mask.tomorrow: unknown setting. ",
        ),
        (
            lambda state: [
                state[name].update({"tomorrow.weight": torch.zeros(2)})
                for name in ("student", "mask_model")
            ],
            'of its settings (Unexpected key(s) in state_dict: "tomorrow.weight"',
        ),
        (
            lambda state: [state[name].clear() for name in ("student", "mask_model")],
            " ...). It was written by",  # of the many that are missing, the first
        ),
    ],
)
def test_a_checkpoint_of_another_version_leaves_nothing(
    change: Callable[[dict[str, Any]], object],
    text: str,
    what: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run, lambda state: (change(state), state.update(version="9.9")))
    said = run_main(capsys, 1, "export", run, tmp_path / "out", "--what", what)
    assert text in said.err
    assert said.err.startswith(f"Error: {run / 'checkpoint.pth'}: ")
    assert "written by adios_tme 9.9; use that version" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--what", "mask", "--format", "timm"], "format=timm is not one of what=mask."),
        (["--format", "folder"], "format=folder is not one of what=encoder. Use --format timm or"),
        (["--what", "heads"], "Invalid value for '--what'"),
        (["--private"], "private would be ignored: nothing is pushed."),
        (["--format", "dinov2", "--push", "me/it"], "push=me/it would be ignored: format=dinov2"),
        (["--push", "me/it/too"], "push: 'me/it/too' is no name of a repository. Give NAME or"),
        (["--push", "me/it--too"], "is no name of a repository"),
    ],
)
def test_settings_that_contradict_each_other_are_told(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run_main(capsys, 2, "export", "no run is read", tmp_path / "out", *words)
    assert text in said.err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept_until_asked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    words: list[str | Path] = ["export", run, out, "--what", "mask"]
    assert f"{out}: exists already." in run_main(capsys, 2, *words).err
    assert names(out) == ["notes.txt"]
    run_main(capsys, 0, *words, "--overwrite")
    assert names(out) == [*FILES, "notes.txt"]
    assert json.loads((out / "config.json").read_text())["num_masks"] == 3


def test_a_folder_is_there_as_a_whole_or_not_at_all(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adios_tme.models.mask_models.generator.save_weights", full)
    said = run_main(capsys, 1, "export", run, tmp_path / "out", "--what", "mask")
    assert "out: cannot be written (No space left on device). Give another path." in said.err
    assert names(tmp_path) == ["run"]


def test_others_may_read_what_is_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(capsys, 0, "export", run, tmp_path / "out", "--what", "mask")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


def test_numpy_images_of_any_size_give_numpy_masks(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(capsys, 0, "export", run, tmp_path / "out", "--what", "mask")
    masks = adios_tme.MaskGenerator.from_pretrained(str(tmp_path / "out"))
    drawn = masks(np.zeros((33, 71, 3), np.uint8))
    assert isinstance(drawn, np.ndarray)
    assert drawn.shape == (3, 33, 71)
