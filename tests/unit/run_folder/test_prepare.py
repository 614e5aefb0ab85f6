"""Whose an output folder is."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from adios_tme.config.load import read_yaml
from adios_tme.config.train import TrainConfig
from adios_tme.errors import ConfigError, DataError
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.run_folder.prepare import prepare_folder, record_settings, resume_source
from tests.factories import tiny_config


def checkpoint(folder: Path, iteration: int = 2) -> Path:
    state = {"student": {}, "mask_model": {}, "config": {}, "iteration": iteration}
    return write_checkpoint(state, folder)


def claim(config: TrainConfig) -> None:
    """What a run does with its folder that nothing refuses."""
    prepare_folder(config)
    record_settings(config)


def test_settings_and_versions_are_written(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path / "run")
    claim(config)
    saved = read_yaml(tmp_path / "run" / "config.yaml", TrainConfig)
    assert saved["model"]["embed_dim"] == 32
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]


def test_another_run_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    claim(tiny_config(tmp_path, tmp_path / "run"))
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"embed_dim is 32, asked 64.*--overwrite"):
        claim(tiny_config(tmp_path, tmp_path / "run", embed_dim=64))
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_settings_that_cannot_be_written_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tiny_config(tmp_path, tmp_path / "run"))
    before = (tmp_path / "run" / "config.yaml").read_bytes()

    def cut_short(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text.encode(encoding)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(DataError, match="No space left"):
        claim(tiny_config(tmp_path, tmp_path / "run", lr=0.5))
    found = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert found["config.yaml"] == before
    assert found.keys() == {"config.yaml", "environment.json"}


def test_damaged_settings_are_named_and_empty_ones_say_nothing(tmp_path: Path) -> None:
    claim(tiny_config(tmp_path, tmp_path))
    (tmp_path / "config.yaml").write_bytes(b"model: {embed_dim: \xff")
    with pytest.raises(ConfigError, match=r"config\.yaml: is not YAML.*remove this file"):
        claim(tiny_config(tmp_path, tmp_path))
    (tmp_path / "config.yaml").write_bytes(b"")
    claim(tiny_config(tmp_path, tmp_path))
    assert read_yaml(tmp_path / "config.yaml", TrainConfig)["model"]["embed_dim"] == 32


@pytest.mark.parametrize("resume", ["never", "some/checkpoint.pth"])
def test_a_run_that_must_not_be_resumed_is_refused(resume: str, tmp_path: Path) -> None:
    claim(tiny_config(tmp_path, tmp_path))
    with pytest.raises(ConfigError, match="already holds a run"):
        claim(tiny_config(tmp_path, tmp_path, resume=resume))


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    claim(tiny_config(tmp_path, tmp_path))
    checkpoint(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    claim(tiny_config(tmp_path, tmp_path, overwrite=True, embed_dim=64))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.txt", "config.yaml", "environment.json"}


def test_where_a_run_goes_on_from(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for folder in (run, other):
        folder.mkdir()
    assert resume_source(tiny_config(tmp_path, run).run) is None
    named = checkpoint(other)
    assert resume_source(tiny_config(tmp_path, run, resume=str(named)).run) == named
    own = checkpoint(run)
    assert resume_source(tiny_config(tmp_path, run).run) == own
