"""``adios-tme index`` and ``benchmark data`` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.factories import make_dataset, run_command, run_installed_command, run_main
from tests.hostile import BAD, PATCHES, half


def test_statistics_a_sheet_and_verification_at_once(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    sheet = tmp_path / "sheet.png"
    words = ("--stats", "--verify", "--json", "--contact-sheet", sheet)
    done = run_installed_command("index", data, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stats"]["sizes"] == {"32 x 32": 12}
    assert found["verify"]["damaged"] == []
    assert np.asarray(Image.open(sheet)).shape[2] == 3


def test_damage_is_listed_with_totals_and_exit_code_one(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    PATCHES["wrong CRC"].build(tmp_path)
    half(tmp_path / "cut.zip")
    done = run_command("index", tmp_path, "--verify")
    assert done.returncode == 1
    assert "1 damaged" in done.stdout
    assert BAD in done.stdout
    damaged = "1 of 16 patches in 1 archives or folders cannot be read (wrong CRC (1))"
    assert damaged in " ".join(done.stderr.split())
    assert "1 archives or folders cannot be listed" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_several_roots_with_weights_train_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = make_dataset(tmp_path / "one"), make_dataset(tmp_path / "two", num_archives=1)
    roots = ("--data_path", one, "--data_path", f"{two}:0")
    said = run_main(capsys, 2, "train", *roots, "--demo", "false")
    assert "two has the weight 0.0. Give one above zero." in said.err


def test_the_loader_is_measured(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", num_archives=2, num_patches=4)
    few = ("--num-rounds", "1", "--num-samples", "8", "--batch-size", "2", "--img-size", "16")
    members = ("--members", "10", "--members", "50", "--num-workers", "1")
    done = run_command("benchmark", "data", data, *few, *members, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [entry["members"] for entry in found["archives"]] == [10, 50]
    assert set(found["split_ms"]) >= {"look_up", "read", "decode", "resize", "hand_over"}
    assert found["images_per_second"]["decode"] > 0
    assert {entry["format"] for entry in found["decoders"]} >= {"PNG", "JPEG", "WEBP", "TIFF"}
    assert not (data / "dataset_index.safetensors").exists()
