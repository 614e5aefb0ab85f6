"""The computed permutation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adios_tme.data.order import sample_rows, shuffled_rows
from tests.permutation import positions_of


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


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 2**40), st.integers(0, 2**63), st.integers(0, 10**6))
def test_every_row_has_one_position_up_to_a_trillion(
    data: st.DataObject, n: int, seed: int, epoch: int
) -> None:
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4, unique=True))
    ends = np.array(sorted({0, n - 1, n // 2, *places}))
    rows = shuffled_rows(ends, n, seed, epoch)
    assert 0 <= rows.min() <= rows.max() < n
    assert positions_of(rows, n, seed, epoch).tolist() == ends.tolist()
    assert shuffled_rows(positions_of(ends, n, seed, epoch), n, seed, epoch).tolist() == (
        ends.tolist()
    )


@pytest.mark.parametrize("n", [8, 13, 20])
@pytest.mark.parametrize("places", [(0, 1), (2, 7)])
def test_pairs_of_positions_hold_any_pair_of_rows(n: int, places: tuple[int, int]) -> None:
    # Chi-square over the n (n - 1) ordered pairs of rows that two positions can show, epoch by
    # epoch. The bound is that of one shuffle in a thousand, by Wilson and Hilferty (1931).
    num_epochs = 200 * n * (n - 1) // 4
    counts = np.zeros((n, n))
    for epoch in range(num_epochs):
        first, second = shuffled_rows(np.array(places), n, seed=7, epoch=epoch)
        counts[first, second] += 1
    cells = counts[~np.eye(n, dtype=bool)]
    expected = num_epochs / len(cells)
    chi_square = float(((cells - expected) ** 2 / expected).sum())
    degrees = len(cells) - 1
    spread = 2 / (9 * degrees)
    bound = degrees * (1 - spread + 3.09 * spread**0.5) ** 3
    assert chi_square < bound
    assert np.diag(counts).sum() == 0


def test_pairs_far_apart_in_a_large_epoch_land_alike() -> None:
    # Neighbours in the order, over a grid of 8 x 8 parts of the data set; 63 degrees of freedom.
    n, cells = (1 << 40) - 12345, 8
    rows = np.concatenate(
        [shuffled_rows(np.arange(4000), n, seed=3, epoch=epoch) for epoch in range(8)]
    )
    counts = np.zeros((cells, cells))
    np.add.at(counts, (rows[:-1] * cells // n, rows[1:] * cells // n), 1)
    expected = (len(rows) - 1) / cells**2
    assert ((counts - expected) ** 2 / expected).sum() < 103.4  # 999 shuffles in a thousand


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
