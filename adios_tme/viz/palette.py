"""Colours of masks, runs and groups."""

from __future__ import annotations

#: Eight colours that people with colour-blindness can tell apart (Okabe and Ito 2008), the ones
#: that contrast with pink tissue first.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#F0E442", "#56B4E9", "#D55E00", "#000000", "#CC79A7")


def colour(number: int) -> str:
    """Colour of the n-th channel or run."""
    return PALETTE[number % len(PALETTE)]
