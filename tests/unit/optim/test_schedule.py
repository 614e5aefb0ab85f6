"""Settings of a step at points worked out by hand."""

from __future__ import annotations

import pytest

from adios_tme.config.model import MaskConfig
from adios_tme.config.objective import LossConfig
from adios_tme.config.optim import OptimConfig
from adios_tme.optim.schedule import schedule_at


def test_lr_rises_then_falls_and_temperature_only_falls() -> None:
    optim = OptimConfig(total_iterations=110, warmup_iterations=10, lr=1.0, min_lr=0.0)
    at = [schedule_at(optim, LossConfig(), MaskConfig(), iteration) for iteration in range(61)]
    # Half way through the cosine both stand in the middle of their ends.
    assert at[60].lr == pytest.approx(0.5)
    assert at[60].mask_lr == pytest.approx(0.125)
    assert at[55].temperature == pytest.approx((0.2 + 0.05) / 2)
    assert at[0].temperature == pytest.approx(0.2)
    assert at[10].lr == pytest.approx(1.0)
    assert 0 < at[0].lr < at[5].lr < 1


def test_the_mask_model_is_due_on_every_nth() -> None:
    mask = MaskConfig(mask_update_freq=3)
    due = [
        schedule_at(OptimConfig(), LossConfig(), mask, iteration).mask_is_due
        for iteration in range(4)
    ]
    assert due == [True, False, False, True]


def test_the_mask_model_is_due_until_it_is_frozen() -> None:
    mask, optim = (
        MaskConfig(train_mask_until=0.3, mask_update_freq=2),
        OptimConfig(total_iterations=20, warmup_iterations=1),
    )
    steps = [schedule_at(optim, LossConfig(), mask, iteration) for iteration in range(20)]
    assert [number for number, now in enumerate(steps) if now.mask_is_due] == [0, 2, 4]
    assert [number for number, now in enumerate(steps) if now.mask_is_frozen] == list(range(6, 20))
    for iteration in (19, 20):  # the second one is beyond the end
        never = schedule_at(optim, LossConfig(), MaskConfig(), iteration)
        assert never.mask_is_due
        assert not never.mask_is_frozen


def test_the_prior_is_there_until_it_is_over() -> None:
    loss, optim = (
        LossConfig(stain_weight=1.0, stain_until=0.25),
        OptimConfig(total_iterations=20, warmup_iterations=1),
    )
    over = [schedule_at(optim, loss, MaskConfig(), number).stain_is_over for number in range(20)]
    assert over == [False] * 5 + [True] * 15
    for iteration in (19, 20):  # the second one is beyond the end
        assert not schedule_at(optim, LossConfig(), MaskConfig(), iteration).stain_is_over
