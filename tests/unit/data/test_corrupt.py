"""The log of damaged patches and when it stops a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.data.corrupt import CorruptLog, CorruptPatch
from adios_tme.errors import DataError
from tests.factories import FULL_DISK


def test_each_patch_is_written_once_also_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "corrupt.jsonl"
    log = CorruptLog(path)
    one, two = (
        CorruptPatch("a.zip", "x.png", "wrong CRC"),
        CorruptPatch("a.zip", "y.png", "truncated"),
    )
    assert log.record([one, two, one]) == [one, two]
    assert log.num_corrupt == 3
    assert CorruptLog(path).record([two]) == []
    assert path.read_text().splitlines() == [
        '{"archive": "a.zip", "name": "x.png", "reason": "wrong CRC"}',
        '{"archive": "a.zip", "name": "y.png", "reason": "truncated"}',
    ]


def test_lines_that_were_cut_short_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "corrupt.jsonl"
    one = CorruptPatch("a.zip", "x.png", "wrong CRC")
    CorruptLog(path).record([one])
    with path.open("ab") as file:
        file.write(b'{"archive": "a.z{"archive": "a.zip"}\n[1]\n\xff\n{"archive": "b')
    assert CorruptLog(path).record([one]) == []


@pytest.mark.skipif(not FULL_DISK.exists(), reason="needs /dev/full")
def test_a_full_disk_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "corrupt.jsonl"
    log = CorruptLog(path)
    path.symlink_to(FULL_DISK)
    one = CorruptPatch("a.zip", "x.png", "wrong CRC")
    assert log.record([one]) == [one]
    assert log.num_corrupt == 1
    assert "corrupt.jsonl: cannot be written (No space left on device)" in caplog.text


@pytest.mark.parametrize(
    ("damaged", "seen", "stops"), [(10, 500, False), (11, 500, True), (40, 4000, False)]
)
def test_too_many_stop_the_run(damaged: int, seen: int, stops: bool, tmp_path: Path) -> None:
    log = CorruptLog(tmp_path / "corrupt.jsonl")
    log.record(CorruptPatch("a.zip", f"{number}.png", "gone") for number in range(damaged))
    if not stops:
        log.check(seen, 0.01)
        return
    with pytest.raises(DataError, match=rf"{damaged} of {seen} patches could not be read"):
        log.check(seen, 0.01)
