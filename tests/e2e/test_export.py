"""``adios-tme export``: what leaves a run, and what is refused."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml

from adios_tme import load_encoder, load_mask_model
from adios_tme.cli.app import main
from adios_tme.export.snippets import OLD_TIMM, OURS, PLAIN_TORCH, TIMM
from tests.factories import tiny_config, untrained_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return untrained_run(tmp_path / "run")


def export(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """Run the command in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["adios-tme", "export", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_folder_loads_as_its_card_says(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "encoder"
    assert export(monkeypatch, run, out, "--licence", "cc-by-4.0") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    card = (out / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "cc-by-4.0"
    assert "Trained without labels for 0 updates" in body
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = load_encoder(run)(images)[:, 0]
        for snippet in (TIMM, OLD_TIMM, PLAIN_TORCH, OURS):
            code = snippet.replace("FOLDER", str(out)).replace("SIDE", "32")
            assert snippet.replace("SIDE", "32") in body
            names: dict[str, Any] = {}
            exec(code, names)
            found = names["encoder"](images)
            found = found[:, 0] if found.ndim == 3 else found
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_teacher_file_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "teacher.pth"
    assert export(monkeypatch, run, out, "--format", "dinov2") == 0
    assert "backbone.cls_token" in torch.load(out, weights_only=True)["teacher"]


def test_an_onnx_file_runs_as_the_page_says(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mask.onnx"
    assert export(monkeypatch, run, out, "--what", "mask", "--format", "onnx") == 0
    written = capfd.readouterr()
    assert written.err == ""
    assert written.out == (
        f"Wrote {out}: uint8 images (batch, 3, height, width) in, masks out; "
        f"checked against torch.\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.onnx", "run"]
    page = (Path(__file__).parents[2] / "docs" / "exports" / "onnx.md").read_text()
    (snippet,) = re.findall(r"```python\n([^`]*onnxruntime[^`]*)```", page)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["facts"]["what"] == "mask"
    data = tiny_config(tmp_path, tmp_path).data
    assert (tuple(names["mean"]), tuple(names["std"])) == (data.mean, data.std)
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 50, 70), dtype=np.uint8)
    (found,) = names["session"].run(None, {"images": images})
    # The file sees whole images, however large.
    expected = load_mask_model(run)(torch.from_numpy(images), windows=False).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


ONNX = ("--format", "onnx")


@pytest.mark.parametrize(
    ("out", "flags", "code", "message"),
    [
        ("masks.pt", ONNX, 2, "Give a name that ends in .onnx."),
        ("there.onnx", ONNX, 2, "there.onnx: exists already. Give another OUT, or --overwrite"),
        ("dir.onnx", (*ONNX, "--overwrite"), 2, "is a folder; --format onnx writes a file."),
        ("new.onnx", ONNX, 1, "no-run: does not exist. Give a checkpoint file"),
        (
            "new.onnx",
            (*ONNX, "--licence", "mit"),
            2,
            "licence=mit would be ignored: format=onnx has no model card.",
        ),
    ],
)
def test_what_onnx_refuses(
    out: str,
    flags: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there.onnx").touch()
    (tmp_path / "dir.onnx").mkdir()
    there = sorted(tmp_path.rglob("*"))
    assert export(monkeypatch, tmp_path / "no-run", tmp_path / out, *flags) == code
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == there


def test_onnx_without_its_extra_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    assert export(monkeypatch, tmp_path / "no-run", tmp_path / "mask.onnx", *ONNX) == 2
    assert capsys.readouterr().err == (
        "Error: export: --format onnx needs onnxscript. "
        "Install the extra with pip install 'adios-tme[onnx]'.\n"
    )


def test_what_is_there_is_kept_until_asked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "encoder"
    out.mkdir()
    assert export(monkeypatch, run, out) == 2
    assert "exists already" in capsys.readouterr().err
    assert list(out.iterdir()) == []
    assert export(monkeypatch, run, out, "--overwrite") == 0
    timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0)


def test_a_folder_is_no_place_for_a_file_nor_a_file_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "teacher.pth"
    teacher.touch()
    assert export(monkeypatch, "no run is read", teacher, "--overwrite") == 2
    assert "is a file; --format timm writes a folder." in capsys.readouterr().err
    flags = ("--overwrite", "--format", "dinov2")
    assert export(monkeypatch, "no run is read", tmp_path, *flags) == 2
    assert "is a folder; --format dinov2 writes a file." in capsys.readouterr().err


def test_a_run_without_checkpoints_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert export(monkeypatch, tmp_path / "empty", tmp_path / "out") == 1
    assert "holds no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"architecture": "resnet18"}'])
def test_a_folder_of_something_else_is_refused(
    content: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "encoder"
    export(monkeypatch, run, out)
    (out / "config.json").write_text(content)
    with pytest.raises(Exception, match="holds no encoder that adios-tme export has written"):
        load_encoder(out)
