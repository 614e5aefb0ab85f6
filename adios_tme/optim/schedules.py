"""Learning rate and temperature as plain functions of the step: no state, nothing to save."""

from __future__ import annotations

import math


def half_cosine(step: int, total: int, start: float, end: float) -> float:
    """Fall (or rise) from ``start`` at step 0 to ``end`` at step ``total`` by half a cosine.

    Args:
        step: Finished steps; beyond ``total`` the end value stays.
        total: Steps of the whole way.
        start: Value at step 0.
        end: Value at step ``total``.
    """
    share = min(1.0, step / total) if total > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def warmup_cosine(step: int, total: int, warmup: int, peak: float, end: float) -> float:
    """Rise linearly to ``peak`` over the warm-up, then fall to ``end`` by half a cosine.

    The first step already moves: it takes ``peak / warmup``.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return half_cosine(step - warmup, total - warmup, peak, end)
