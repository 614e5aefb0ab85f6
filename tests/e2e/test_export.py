"""``adios-tme export``: what leaves a run, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from adios_tme import load_encoder
from adios_tme.cli.app import main
from adios_tme.export.model_card import OLD_TIMM, OURS, TIMM
from tests.factories import untrained_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a checkpoint of untrained networks."""
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
        for snippet in (TIMM, OLD_TIMM, OURS):
            code = snippet.replace("FOLDER", str(out)).replace("SIDE", "32")
            assert snippet.replace("SIDE", "32") in body
            names: dict[str, Any] = {}
            exec(code, names)
            found = names["encoder"].eval()(images)
            found = found[:, 0] if found.ndim == 3 else found
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_teacher_file_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "teacher.pth"
    assert export(monkeypatch, run, out, "--format", "dinov2") == 0
    assert "backbone.cls_token" in torch.load(out, weights_only=True)["teacher"]


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
