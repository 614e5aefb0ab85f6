"""Figures of interleaved timing."""

from __future__ import annotations

import pytest

from adios_tme.benchmark.interleave import Cost, cpu, cpu_milliseconds, cpu_ratio, speed_ratio

COSTS = {
    "fast": [Cost(1, 0.5), Cost(2, 0.5), Cost(4, 1)],
    "slow": [Cost(4, 2), Cost(4, 1), Cost(4, 1.5)],
}


def test_ratios_are_medians_over_the_turns() -> None:
    assert speed_ratio(COSTS, "fast", "slow") == 2
    assert cpu_ratio(COSTS, "fast", "slow") == 2
    assert (cpu(COSTS["slow"]), cpu_milliseconds(COSTS["slow"])) == (1.5, 1500)


@pytest.mark.parametrize("untold", [None, 0.0])
def test_no_figure_goes_by_cpu_time_that_is_not_told(untold: float | None) -> None:
    costs = COSTS | {"untold": [Cost(1, untold), Cost(1, 1), Cost(1, 1)]}
    assert cpu(costs["untold"]) is None
    assert cpu_milliseconds(costs["untold"]) is None
    assert cpu_ratio(costs, "fast", "untold") is None
    assert cpu_ratio(costs, "untold", "slow") is None
    assert speed_ratio(costs, "untold", "slow") == 4
