"""Which samples are held out: whole slides where they are known, else patches.

Shape legend: I samples, G slides, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adios_tme.errors import DataError

#: Orders of the slides that are tried for a part with the share of each class that is asked for.
NUM_ORDERS = 64


def hold_out(
    labels: Sequence[str],
    slides: Sequence[str] | None,
    fraction: float,
    seed: int,
    place: Path,
) -> NDArray[np.bool_]:
    """Whether each sample is in the test part; every class is in both.

    Args:
        labels: Class of each sample.
        slides: What is not divided; None: samples are held out one by one, as many of each class.
        fraction: Share of each class in the test part.
        seed: Of what is drawn.
        place: Where the samples lie, for messages.

    Raises:
        DataError: If slides cannot be divided so that each class is in both parts.
    """
    classes, numbers_I = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(seed)
    if slides is None:
        return _by_patch(numbers_I, fraction, rng)
    names, slides_I = np.unique(slides, return_inverse=True)
    counts_GC = np.zeros((len(names), len(classes)))
    np.add.at(counts_GC, (slides_I, numbers_I), 1)
    for number, name in enumerate(classes):
        on = np.flatnonzero(counts_GC[:, number])
        if len(on) < 2:
            raise DataError(
                f"{place}: all of the class {name} is on one slide ({names[on[0]]}), which cannot "
                f"be in both parts. Add a slide, give --test, or --split-by patch."
            )
    held_out = _best_slides(counts_GC, fraction, rng)
    if held_out is None:
        raise DataError(
            f"{place}: its {len(names)} slides cannot be divided so that each class is in both "
            f"parts. Add slides, give --test, or --split-by patch."
        )
    return np.isin(slides_I, held_out)


def _by_patch(
    numbers_I: NDArray[np.integer], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    is_test = np.zeros(len(numbers_I), dtype=bool)
    for number in range(int(numbers_I.max()) + 1):
        rows = np.flatnonzero(numbers_I == number)
        num_test = min(len(rows) - 1, max(1, round(fraction * len(rows))))
        is_test[rng.permutation(rows)[:num_test]] = True
    return is_test


def _best_slides(
    counts_GC: NDArray[np.float64], fraction: float, rng: np.random.Generator
) -> NDArray[np.integer] | None:
    """The first slides of some order whose shares of the classes are nearest to what is asked."""
    shares_GC = counts_GC / counts_GC.sum(axis=0)
    best, least = None, np.inf
    for _ in range(NUM_ORDERS):
        order = rng.permutation(len(shares_GC))
        reached_GC = np.cumsum(shares_GC[order], axis=0)
        possible = ((reached_GC > 1e-9) & (reached_GC < 1 - 1e-9)).all(axis=1)
        off = np.where(possible, np.abs(reached_GC - fraction).max(axis=1), np.inf)
        place = int(off.argmin())
        if off[place] < least:
            best, least = order[: place + 1], off[place]
    return best
