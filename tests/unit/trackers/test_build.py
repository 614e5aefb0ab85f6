"""Trackers as a run has them."""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from adios_tme.errors import ConfigError
from adios_tme.trackers import tensorboard
from adios_tme.trackers.build import build_trackers, check_packages
from adios_tme.training.loop import run_training
from tests.factories import make_dataset, run_main, tiny_config
from tests.spawn import run_on_ranks
from tests.unit.trackers.fakes import FakeTracker, failing_at


def lines_of(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def test_without_a_word_there_is_metrics_jsonl_alone(tmp_path: Path) -> None:
    (tracker,) = build_trackers(tiny_config(tmp_path, tmp_path / "run"), iteration=0)
    assert type(tracker).__name__ == "JsonLinesTracker"
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = util.find_spec
    missing = ("wandb", "trackio")
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in missing else found(name))
    make_dataset(tmp_path / "data")
    flags = ["--trackers", "wandb", "--trackers", "tensorboard", "--trackers", "trackio"]
    run = tmp_path / "run"
    said = run_main(
        capsys, 2, "train", "--data-path", tmp_path / "data", "--output-dir", run, *flags
    )
    assert (
        "trackers: wandb and trackio cannot be used, as the package is not installed here. Run "
        "pip install 'adios-tme[wandb,trackio]', or drop --trackers wandb --trackers trackio."
    ) in said.err
    assert not run.exists()
    with pytest.raises(ConfigError, match="as the package is not installed"):
        run_training(tiny_config(tmp_path / "data", run, trackers=("trackio",)))
    assert not run.exists()


def test_a_folder_of_a_packages_name_is_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trackio_runs").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    names: Any = ("trackio_runs",)
    with pytest.raises(ConfigError, match="as the package is not installed"):
        check_packages(names)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--trackers", "tensorbord"],
            "tracking.trackers.0: expected one of 'tensorboard', 'wandb', 'mlflow' or 'trackio', "
            "got 'tensorbord'.",
        ),
        (
            ["--trackers", "wandb", "--trackers", "wandb"],
            "tracking.trackers: wandb is given 2 times. Give it once.",
        ),
        (
            ["--trackers", "tensorboard", "--tracker-run-name", "best"],
            "tracking: tracker_run_name would be ignored: trackers=tensorboard shows no names. "
            "Drop it, or add --trackers wandb, mlflow or trackio.",
        ),
        (
            ["--tracker-project", "tissue"],
            "tracking: tracker_project would be ignored: trackers=None shows no names. "
            "Drop it, or add --trackers wandb, mlflow or trackio.",
        ),
    ],
)
def test_mistakes_are_told_in_words(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in run_main(capsys, 2, "train", "--data-path", "patches", *flags).err


def test_training_ends_well_where_trackers_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {"tensorboard": ("start",), "wandb": ("line 1", "line 2", "line 3")}
    for name, what in failures.items():

        def opened(run: Any, what: tuple[str, ...] = what) -> FakeTracker:
            return FakeTracker(run, failing_at(*what))

        monkeypatch.setattr(f"adios_tme.trackers.{name}.open_run", opened)
    make_dataset(tmp_path / "data")
    run_training(tiny_config(tmp_path / "data", tmp_path / "run", trackers=tuple(failures)))
    log = (tmp_path / "run" / "train.log").read_text()
    assert "WARNING tensorboard: switched off, because it did not start" in log
    assert "WARNING wandb: switched off, because it failed 3 times in a row" in log
    assert lines_of(tmp_path / "run") == [1, 2, 3, 4]


def test_a_run_that_fails_says_so_to_its_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FakeTracker] = []

    def open_run(run: Any) -> FakeTracker:
        opened.append(FakeTracker(run))
        return opened[-1]

    monkeypatch.setattr(tensorboard, "open_run", open_run)
    make_dataset(tmp_path / "data")
    config = tiny_config(tmp_path / "data", tmp_path / "run", trackers=("tensorboard",))
    with monkeypatch.context() as patch:
        patch.setattr("adios_tme.training.loop.train_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_training(config)
    run_training(config)
    assert [tracker.told[-1] for tracker in opened] == ["failed", "finished"]


def ranks_that_train(data: str, run: str) -> None:
    run_training(tiny_config(Path(data), Path(run), trackers=("tensorboard",)))


def test_only_the_first_of_two_ranks_writes(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    run_on_ranks(ranks_that_train, 2, str(tmp_path / "data"), str(tmp_path / "run"))
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    assert lines_of(tmp_path / "run") == [1, 2, 3, 4]
