"""The report at the end of a run: written once it is finished, and never why it fails."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from adios_tme.config.train import TrainConfig
from adios_tme.training.loop import run_training
from tests.factories import make_dataset, tiny_config


def config(folder: Path, **flags: object) -> TrainConfig:
    if not (folder / "data").exists():
        make_dataset(folder / "data")
    return tiny_config(folder / "data", folder / "run", **flags)


def test_a_finished_run_has_a_report(tmp_path: Path) -> None:
    run_training(config(tmp_path, report=True, viz_freq=2))
    text = (tmp_path / "run" / "report.html").read_text()
    assert "The run reached iteration 4." in text
    assert text.count("data:image/webp") >= 3  # two pictures of masks, and the contact sheet


def test_no_report_where_none_is_wanted(tmp_path: Path) -> None:
    run_training(config(tmp_path, report=False))
    assert not (tmp_path / "run" / "report.html").exists()
    assert TrainConfig(demo=True).run.report  # unless it is said


def test_a_report_that_fails_costs_a_warning_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("adios_tme.viz.report.page.render", fail)
    caplog.set_level(logging.WARNING)
    checkpoint = run_training(config(tmp_path, report=True))
    assert checkpoint.is_file()
    (said,) = [record.message for record in caplog.records if "report.html" in record.message]
    assert said.endswith("was not written (no such luck). Try adios-tme viz report.")
    assert not list((tmp_path / "run").glob("*report*"))
