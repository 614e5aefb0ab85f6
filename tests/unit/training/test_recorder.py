"""What a run tells about its time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adios_tme.optim.schedule import Schedule
from adios_tme.training import recorder
from adios_tme.training.loop import run_training
from adios_tme.training.mask_diagnostics import Diagnostics, measure_diagnostics
from adios_tme.training.metrics import duration
from adios_tme.training.state import Run
from tests.factories import make_dataset, tiny_config

TWO_VIEWS = {"views": "two", "augment": "geometric"}


def log_of(folder: Path, **flags: Any) -> str:
    """The log of a run of four iterations, an entry a line."""
    make_dataset(folder / "data")
    run_training(tiny_config(folder / "data", folder / "run", **flags))
    return (folder / "run" / "train.log").read_text()


def test_the_first_iteration_is_told_at_once(tmp_path: Path) -> None:
    log_of(tmp_path, log_freq=3)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 3, 4]


def test_every_line_tells_the_time_that_is_left(tmp_path: Path) -> None:
    left = re.findall(r"(\d)/4 .* (\d+ s) left", log_of(tmp_path))
    assert [iteration for iteration, _ in left] == ["1", "2", "3", "4"]
    assert left[-1][1] == "0 s"


@pytest.mark.parametrize(("flags", "is_same"), [({}, True), (TWO_VIEWS, False)])
def test_diagnostics_see_both_views(
    flags: dict[str, Any], is_same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def measured(
        run: Run, images: Tensor, masks: Tensor, now: Schedule, clean: Tensor
    ) -> Diagnostics:
        seen.append(torch.equal(images, clean))
        return measure_diagnostics(run, images, masks, now, clean)

    monkeypatch.setattr(recorder, "measure_diagnostics", measured)
    log_of(tmp_path, **flags)
    assert seen == [is_same] * 4


def test_a_run_of_days_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "At this speed" not in log_of(tmp_path / "short")
    monkeypatch.setattr(recorder, "LONG_SECONDS", 0)
    told = log_of(tmp_path / "long")
    assert told.count("At this speed the run ends in") == 1
    assert told.index("1/4") < told.index("2/4") < told.index("At this speed")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (11_580, "3 h 13 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
