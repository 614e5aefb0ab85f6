"""The log of samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.config.load import build, nest
from adios_tme.config.train import TrainConfig
from adios_tme.run_folder.metrics import read_metrics
from adios_tme.training.batches import Batches
from adios_tme.training.loop import run_training
from adios_tme.training.sample_log import HEADER, SampleLog, roll_back
from tests.factories import FULL_DISK, make_dataset, tiny_settings


def test_positions_follow_rank_pass_and_epoch(tmp_path: Path) -> None:
    batches = Batches(images_per_pass=2, num_passes=2, num_ranks=2)
    for rank in (0, 1):
        with SampleLog(tmp_path, rank, batches, epoch_length=6) as log:
            log.write(3, first_sample=16, rows=[[10, 11], [12, 13]])
    read = [(tmp_path / "samples" / f"rank_0000{rank}.csv").read_text() for rank in (0, 1)]
    assert read[0] == HEADER + "3,2,4,10\n3,2,5,11\n3,3,2,12\n3,3,3,13\n"
    assert read[1] == HEADER + "3,3,0,10\n3,3,1,11\n3,3,4,12\n3,3,5,13\n"


def test_what_was_rolled_back_is_dropped_and_half_lines_with_it(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "rank_00000.csv"
    path.parent.mkdir()
    path.write_text(HEADER + "1,0,0,5\n2,0,1,6\n3,0,2,7\n4,0,3")
    roll_back(tmp_path, 2)
    assert path.read_text() == HEADER + "1,0,0,5\n2,0,1,6\n"
    assert list(path.parent.iterdir()) == [path]
    path.write_text(HEADER + "1,0,0,5\n1,0,12,0,1,6\nno number,0,0,5\n2,0,")
    roll_back(tmp_path, 2)
    assert path.read_text() == HEADER + "1,0,0,5\n"


def test_epochs_of_weighted_roots_are_those_of_their_mixture(tmp_path: Path) -> None:
    roots = [str(make_dataset(tmp_path / "a")), f"{make_dataset(tmp_path / 'b')}:0.5"]
    flags = {"data_path": roots, "log_samples": True, "total_iterations": 6}
    settings = tiny_settings(tmp_path, tmp_path / "run") | flags
    run_training(build(TrainConfig, nest(TrainConfig, settings)))
    content = (tmp_path / "run" / "samples" / "rank_00000.csv").read_text()
    seen = [tuple(map(int, line.split(","))) for line in content.splitlines()[1:]]
    assert [(epoch, position) for _, epoch, position, _ in seen] == [
        divmod(sample, 12 + 6) for sample in range(6 * 4)
    ]
    first_epoch = [row for _, epoch, _, row in seen if epoch == 0]
    assert len(set(first_epoch)) == len(first_epoch)
    assert read_metrics(tmp_path / "run")[-1]["epoch"] == 6 * 4 / (12 + 6)


@pytest.mark.skipif(not FULL_DISK.exists(), reason="needs /dev/full")
def test_a_full_disk_costs_lines_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "rank_00000.csv").symlink_to(FULL_DISK)
    batches = Batches(images_per_pass=1, num_passes=1, num_ranks=1)
    with SampleLog(tmp_path, 0, batches, epoch_length=6) as log:
        for iteration in (1, 2):
            log.write(iteration, first_sample=iteration, rows=[[iteration]])
    assert caplog.text.count("rank_00000.csv: cannot be written (No space left on device)") == 1
