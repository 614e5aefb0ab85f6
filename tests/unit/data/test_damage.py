"""The log of damaged patches and when it stops a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.data.damage import Damage, DamageLog
from adios_tme.errors import DataError


def test_each_patch_is_written_once_also_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "corrupt.jsonl"
    log = DamageLog(path)
    one, two = Damage("a.zip", "x.png", "wrong CRC"), Damage("a.zip", "y.png", "truncated")
    assert log.record([one, two, one]) == [one, two]
    assert log.num_damaged == 3
    assert DamageLog(path).record([two]) == []
    assert path.read_text().splitlines() == [
        '{"archive": "a.zip", "name": "x.png", "reason": "wrong CRC"}',
        '{"archive": "a.zip", "name": "y.png", "reason": "truncated"}',
    ]


@pytest.mark.parametrize(
    ("damaged", "seen", "stops"), [(10, 500, False), (11, 500, True), (40, 4000, False)]
)
def test_too_many_stop_the_run(damaged: int, seen: int, stops: bool, tmp_path: Path) -> None:
    log = DamageLog(tmp_path / "corrupt.jsonl")
    log.record(Damage("a.zip", f"{number}.png", "gone") for number in range(damaged))
    if not stops:
        log.check(seen, 0.01)
        return
    with pytest.raises(DataError, match=rf"{damaged} of {seen} patches could not be read"):
        log.check(seen, 0.01)
