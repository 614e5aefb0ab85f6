"""The computed permutation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adios_tme.data.order import sample_rows, shuffled_rows


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("num_patches", [1, 2, 3, 7, 8, 9, 64, 65, 151, 1000, 4097])
def test_every_row_comes_once(num_patches: int, block: int) -> None:
    for epoch in range(3):
        rows = shuffled_rows(np.arange(num_patches), num_patches, seed=5, epoch=epoch, block=block)
        assert sorted(rows) == list(range(num_patches))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 40))
def test_it_is_a_bijection_whatever_the_numbers(n: int, seed: int, epoch: int, block: int) -> None:
    rows = shuffled_rows(np.arange(n), n, seed, epoch, block)
    assert np.array_equal(np.sort(rows), np.arange(n))


def test_a_position_is_a_pure_function() -> None:
    whole = shuffled_rows(np.arange(1000), 1000, seed=1, epoch=2)
    some = shuffled_rows(np.array([[17, 3], [999, 17]]), 1000, seed=1, epoch=2)
    assert some.tolist() == [[whole[17], whole[3]], [whole[999], whole[17]]]


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = {
        tuple(shuffled_rows(np.arange(50), 50, seed, epoch))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_rows_land_everywhere_alike() -> None:
    # Chi-square of the tenth into which each row lands, over many epochs: 99.9 % of shuffles with
    # 81 degrees of freedom stay below 127.
    n, num_epochs, cells = 1000, 400, 10
    counts = np.zeros((cells, cells))
    for epoch in range(num_epochs):
        rows = shuffled_rows(np.arange(n), n, seed=0, epoch=epoch)
        np.add.at(counts, (rows * cells // n, np.arange(n) * cells // n), 1)
    expected = n * num_epochs / cells**2
    assert ((counts - expected) ** 2 / expected).sum() < 127


def test_neighbours_do_not_stay_together() -> None:
    n = 10_000
    rows = shuffled_rows(np.arange(n), n, seed=0, epoch=0)
    # Two random rows differ by one with a chance of 2 / n; over n pairs that makes two.
    assert (np.abs(np.diff(rows)) == 1).sum() < 15
    correlation = np.corrcoef(np.arange(n), rows)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(n)


def test_blocks_stay_together() -> None:
    rows = shuffled_rows(np.arange(1000), 1000, seed=0, epoch=0, block=10)
    assert (np.diff(rows) == 1).mean() > 0.88
    assert (np.diff(rows) == 1).mean() < 0.95


def test_a_trillion_patches_cost_no_memory() -> None:
    n = 1 << 40
    rows = shuffled_rows(np.arange(5), n, seed=0, epoch=0)
    assert len(set(rows.tolist())) == 5
    assert 0 <= rows.min() <= rows.max() < n
    assert rows.max() > n // 8


def test_samples_go_on_through_epochs() -> None:
    rows = sample_rows(np.arange(30), 10, seed=3)
    for epoch in range(3):
        expected = shuffled_rows(np.arange(10), 10, seed=3, epoch=epoch)
        assert rows[10 * epoch : 10 * epoch + 10].tolist() == expected.tolist()


@pytest.mark.parametrize(("n", "block"), [(0, 1), (5, 0)])
def test_impossible_lengths_are_refused(n: int, block: int) -> None:
    with pytest.raises(ValueError, match="above zero"):
        shuffled_rows(np.arange(1), n, 0, 0, block)
