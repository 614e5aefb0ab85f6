"""Every file that a run writes is known, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.data.index import INDEX_NAME
from adios_tme.data.index_builder import index_path
from adios_tme.files import RUN_FILES
from adios_tme.run_folder.layout import (
    CORRUPT,
    ENVIRONMENT,
    LOG,
    MASK_PICTURES,
    METRICS,
    NEWEST,
    SETTINGS,
    TENSORBOARD,
    TRACKERS,
    WANDB,
    checkpoint_name,
    clear_run,
    iteration_of,
    mask_picture_name,
)
from adios_tme.training.loop import run_training
from tests.factories import make_dataset, tiny_config


def test_a_cleared_folder_keeps_what_is_not_the_runs(tmp_path: Path) -> None:
    written = [SETTINGS, ENVIRONMENT, METRICS, LOG, CORRUPT, NEWEST, checkpoint_name(7)]
    written += [INDEX_NAME, f"1_{INDEX_NAME}", ".checkpoint.pth.17.partial"]
    written += [str(MASK_PICTURES / mask_picture_name(7)), "samples/rank_00000.csv"]
    written += [TRACKERS, f"{TENSORBOARD}/events.out.tfevents.1", f"{WANDB}/latest-run"]
    foreign = ["notes.txt", "checkpoints_of_mine.zip", "config.yml", ".hidden"]
    for name in (*written, *foreign):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("something")
    clear_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(foreign)


def test_a_finished_run_can_be_cleared_to_nothing(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    shape = {"viz_freq": 2, "log_samples": True, "report": True}
    run_training(tiny_config(tmp_path / "data", tmp_path / "run", **shape))
    assert len(list((tmp_path / "run").iterdir())) > 6
    clear_run(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_the_index_of_every_root_is_a_file_of_the_run(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)  # as of a disk that is only read
        paths = [index_path(data, run, number) for number in range(3)]
    assert len({path.name for path in paths}) == 3
    for path in paths:
        assert path.parent == run
        path.write_text("an index")
    clear_run(run)
    assert list(run.iterdir()) == []


def test_names_of_checkpoints_are_read_back() -> None:
    assert iteration_of(Path(checkpoint_name(12))) == 12
    assert checkpoint_name(3) == "checkpoint_iter_00000003.pth"
    assert iteration_of(Path("checkpoint_iter_3.pth")) is None
    assert iteration_of(Path(NEWEST)) is None


def test_a_folder_with_these_files_is_known_as_that_of_a_run() -> None:
    assert {SETTINGS, ENVIRONMENT, LOG} == RUN_FILES
