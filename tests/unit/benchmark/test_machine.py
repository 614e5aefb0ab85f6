"""What memory there is, where a job or a container may have less than the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.benchmark.machine import _rooms_of_groups


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_page_cache_of_a_group_gives_way(tmp_path: Path) -> None:
    job = tmp_path / "groups" / "slurm" / "job_1"
    group(job, memory__max="1000\n", memory__current="700\n", memory__stat="anon 300\nfile 400\n")
    group(job.parent, memory__max="max\n", memory__current="9000\n", memory__stat="file 0\n")
    (tmp_path / "listed").write_text("0::/slurm/job_1\n")
    assert list(_rooms_of_groups(tmp_path / "listed", tmp_path / "groups")) == [700]


def test_groups_of_version_one_and_above(tmp_path: Path) -> None:
    memory = tmp_path / "groups" / "memory"
    for place, limit in ((memory / "job", "500"), (memory, "2000")):
        group(
            place,
            memory__limit_in_bytes=limit,
            memory__usage_in_bytes="400",
            memory__stat="cache 1\ntotal_cache 100\n",
        )
    (tmp_path / "listed").write_text("9:cpu:/x\n4:memory:/job\n1:name=systemd:/a:b\n")
    assert list(_rooms_of_groups(tmp_path / "listed", tmp_path / "groups")) == [200, 1700]


@pytest.mark.parametrize("listed", ["0::/gone\n", ""])
def test_what_is_not_there_limits_nothing(listed: str, tmp_path: Path) -> None:
    (tmp_path / "listed").write_text(listed)
    assert list(_rooms_of_groups(tmp_path / "listed", tmp_path / "groups")) == []
    assert list(_rooms_of_groups(tmp_path / "absent", tmp_path / "groups")) == []
