"""Settings of a step at points worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.optim.schedule import schedule_at
from tests.factories import tiny_config


def test_lr_rises_then_falls_and_temperature_only_falls(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, tmp_path, total_iterations=110, warmup_iterations=10, lr=1.0, min_lr=0.0
    )
    # Half way through the cosine both stand in the middle of their ends.
    middle = schedule_at(config, 60)
    assert middle.lr == pytest.approx(0.5)
    assert middle.mask_lr == pytest.approx(0.125)
    assert schedule_at(config, 55).temperature == pytest.approx((0.2 + 0.05) / 2)
    assert schedule_at(config, 0).temperature == pytest.approx(0.2)
    assert schedule_at(config, 10).lr == pytest.approx(1.0)
    assert 0 < schedule_at(config, 0).lr < schedule_at(config, 5).lr < 1


def test_the_mask_model_is_due_on_every_nth(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, mask_update_freq=3)
    due = [schedule_at(config, iteration).mask_is_due for iteration in range(4)]
    assert due == [True, False, False, True]
