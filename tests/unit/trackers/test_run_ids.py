"""Runs of the trackers are found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adios_tme.trackers.run_ids import RunIds


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "trackers.json"
    ids = RunIds(path)
    assert ids.run_id("wandb") is None
    assert ids.open("wandb", "abc") == 0
    ids.note("wandb", 7)
    assert json.loads(path.read_text()) == {"wandb": {"id": "abc", "last_step": 7}}
    again = RunIds(path)
    assert again.run_id("wandb") == "abc"
    assert again.open("wandb", "abc") == 7


def test_a_new_run_has_been_told_nothing(tmp_path: Path) -> None:
    ids = RunIds(tmp_path / "trackers.json")
    ids.open("mlflow", "deleted")
    ids.note("mlflow", 7)
    assert ids.open("mlflow", "new") == 0
    assert ids.run_id("mlflow") == "new"


@pytest.mark.parametrize("content", ["", "[]", '{"wandb": 3}', '{"wandb": {"id": "a"}}', "\xff"])
def test_a_damaged_file_costs_a_warning(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trackers.json"
    path.write_text(content, encoding="latin-1")
    assert RunIds(path).run_id("wandb") is None
    assert caplog.messages == [
        f"{path}: cannot be read (it is not what was written); trackers begin new runs."
    ]


def test_a_disk_that_does_not_take_it_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gone" / "trackers.json"
    assert RunIds(path).open("wandb", "abc") == 0
    assert caplog.messages == [
        f"{path}: cannot be written (No such file or directory); training goes on."
    ]
