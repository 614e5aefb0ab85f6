"""What the loader's benchmark measures on."""

from __future__ import annotations

import time
import zipfile
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from adios_tme.benchmark.data import bench
from adios_tme.benchmark.data.bench import Bench
from adios_tme.benchmark.data.measure import measure_loading
from adios_tme.benchmark.data.report import STAGES, loading_summary, loading_tables
from adios_tme.config.commands.loading import LoadingConfig
from adios_tme.config.load import build
from adios_tme.errors import ConfigError
from tests.factories import make_archive, png


def test_the_sample_is_every_patch_once_that_can_be_decoded(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "data" / "a.zip", num_patches=2)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("patch_002_448_x0_y448.png", png(32)[:200])
        archive.writestr("patch_003_448_x448_y448.png", png(32, seed=9))
    config = LoadingConfig(data_path=path.parent, num_samples=20)
    bench = Bench.build(config, tmp_path)
    assert bench.rows == [0, 1, 3]
    assert bench.contents == [png(32), png(32, seed=1), png(32, seed=9)]


def test_what_goes_by_cpu_time_is_left_out_where_the_system_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(bench, "SCHEDSTAT", str(tmp_path / "{}"))
    monkeypatch.setattr(time, "sleep", waits.append)
    path = make_archive(tmp_path / "data" / "a.zip", num_patches=2)
    few = {"num_samples": 2, "num_rounds": 1, "batch_size": 2, "num_workers": 1, "img_size": 16}
    results = measure_loading(LoadingConfig(data_path=path.parent, members=(10,), **few))
    assert results.loader.ratios.one_worker_of_decode_ceiling_by_cpu is None
    assert results.loader.ratios.one_worker_of_decode_ceiling > 0
    assert list(results.loader.images_per_second) == [
        "decode",
        "one_worker",
        "one_worker_resizing",
        "all_workers",
        "pillow_way",
    ]
    assert list(results.loader.split_ms) == list(results.loader.split_cpu_ms) == list(STAGES)
    (archive,) = results.archives
    assert archive.loader_over_smallest_archive is None
    assert min(waits) > 0  # the time in which workers fill their slots
    with StringIO() as stream:
        console = Console(file=stream, width=200)
        console.print(*loading_tables(results), loading_summary(results))
        assert "(- by CPU time)" in stream.getvalue()


@pytest.mark.parametrize("told", ["0 0 0\n", ""])
def test_statistics_that_are_not_kept_are_not_taken_for_rest(
    told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SCHEDSTAT", str(tmp_path / "{}"))
    (tmp_path / "7").write_text("1500000000 3 1\n")
    if told:
        (tmp_path / "8").write_text(told)
    assert bench.cpu_seconds([7]) == 1.5
    assert bench.cpu_seconds([7, 8]) is None


@pytest.mark.parametrize("members", [(10, 10), (10, 0), (-5,), ()])
def test_archives_of_the_same_size_or_of_none_are_refused(members: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="members: expected different numbers above zero, got"):
        build(LoadingConfig, {"data_path": "x", "members": members})
