"""The way back through the computed permutation, written apart: from a row to its position.

That it exists for every row proves that the permutation is one, for lengths that no test could
list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.order import NUM_ROUNDS, _keys

Integers = NDArray[np.int64]


def positions_of(rows: Integers, num_patches: int, seed: int, epoch: int) -> Integers:
    """Where rows stand in an epoch that is shuffled row by row."""
    keys, num_bits = _keys(seed, epoch), max(1, (num_patches - 1).bit_length())
    return np.array([_back(int(row), num_patches, num_bits, keys) for row in rows])


def _back(row: int, num_patches: int, num_bits: int, keys: list[int]) -> int:
    place = _unmix(row, num_bits, keys)
    while place >= num_patches:
        place = _unmix(place, num_bits, keys)
    return place


def _unmix(mixed: int, num_bits: int, keys: list[int]) -> int:
    size, shift = 1 << num_bits, max(1, num_bits // 2)
    for number in reversed(range(NUM_ROUNDS)):
        plain = mixed
        for _ in range(num_bits // shift + 1):  # each turn settles the next bits from the top
            plain = mixed ^ (plain >> shift)
        factor = (keys[2 * number + 1] | 1) % size
        mixed = (plain * pow(factor, -1, size) - keys[2 * number]) % size
    return mixed
