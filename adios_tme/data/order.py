"""The order of patches: a seeded permutation of each epoch, computed and not stored.

Position p of epoch e is a pure function of (seed, e, p, n), so any number of ranks and workers can
take their slices of it, and a run can go on at an exact sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

NUM_ROUNDS = 6
_MASK_64 = (1 << 64) - 1


def shuffled_rows(
    positions: NDArray[np.integer], num_patches: int, seed: int, epoch: int, block: int = 1
) -> Rows:
    """Rows that stand at some positions of an epoch.

    Args:
        positions: Integers in [0, num_patches).
        num_patches: Length of the epoch, up to 2^40.
        seed: Seed of the run.
        epoch: Number of the epoch.
        block: Neighbouring rows that are shuffled as one; 1 shuffles every row.

    Returns:
        Rows in [0, num_patches), the same shape; over all positions each row comes once.

    Raises:
        ValueError: If the length or the block is not above zero.
    """
    if num_patches < 1 or block < 1:
        raise ValueError(f"num_patches={num_patches} and block={block} must be above zero.")
    keys = _keys(seed, epoch)
    places = np.asarray(positions, dtype=np.uint64)
    num_blocks = num_patches // block
    if block == 1 or num_blocks < 2:
        return _permute(places, num_patches, keys).astype(np.int64)
    # The rows that fill no block come at a place of their own that moves with the epoch.
    start = np.uint64(keys[0] % num_patches)
    places = (places + start) % np.uint64(num_patches)
    in_block = places < np.uint64(num_blocks * block)
    width = np.uint64(block)
    moved = _permute(np.where(in_block, places // width, np.uint64(0)), num_blocks, keys)
    return np.where(in_block, moved * width + places % width, places).astype(np.int64)


def sample_rows(samples: NDArray[np.integer], num_patches: int, seed: int, block: int = 1) -> Rows:
    """Rows of samples that are counted from the start of the run.

    Sample s is position s % n of epoch s // n.

    Args:
        samples: Integers from 0 on, in any order.
        num_patches: Length of an epoch.
        seed: Seed of the run.
        block: See `shuffled_rows`.
    """
    epochs, positions = np.divmod(np.asarray(samples, dtype=np.int64), num_patches)
    rows = np.empty(epochs.shape, dtype=np.int64)
    for epoch in np.unique(epochs):
        own = epochs == epoch
        rows[own] = shuffled_rows(positions[own], num_patches, seed, int(epoch), block)
    return rows


def _permute(places: NDArray[np.uint64], count: int, keys: list[int]) -> NDArray[np.uint64]:
    """Mix within the next power of two, and walk on from what falls outside the count."""
    num_bits = max(1, (count - 1).bit_length())
    mixed = _mix(places, num_bits, keys)
    outside = mixed >= count
    while outside.any():
        mixed[outside] = _mix(mixed[outside], num_bits, keys)
        outside = mixed >= count
    return mixed


def _mix(places: NDArray[np.uint64], num_bits: int, keys: list[int]) -> NDArray[np.uint64]:
    """Rounds of add, multiply by an odd number and xor-shift, each a bijection on num_bits."""
    mask = np.uint64((1 << num_bits) - 1)
    shift = np.uint64(max(1, num_bits // 2))
    mixed = places.copy()
    with np.errstate(over="ignore"):
        for number in range(NUM_ROUNDS):
            mixed += np.uint64(keys[2 * number])
            mixed *= np.uint64(keys[2 * number + 1] | 1)
            mixed &= mask
            mixed ^= mixed >> shift
    return mixed


def _keys(seed: int, epoch: int) -> list[int]:
    """Numbers for the rounds, from SplitMix64 (Steele et al. 2014) on seed and epoch."""
    state = (_scramble(seed & _MASK_64) ^ epoch) & _MASK_64
    keys = []
    for _ in range(2 * NUM_ROUNDS):
        state = (state + 0x9E3779B97F4A7C15) & _MASK_64
        keys.append(_scramble(state))
    return keys


def _scramble(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return value ^ (value >> 31)
