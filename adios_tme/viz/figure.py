"""What all pictures share: no window, one palette, PNG or SVG by the file's name."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from adios_tme.files import PNG_METADATA, check_suffix

SUFFIXES = (".png", ".svg")
DOTS_PER_INCH = 120

#: Eight colours that people with colour-blindness can tell apart (Okabe and Ito 2008), the ones
#: that contrast with pink tissue first.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#F0E442", "#56B4E9", "#D55E00", "#000000", "#CC79A7")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, making its folder.

    Raises:
        ConfigError: If the name has another suffix.
        OSError: If the file cannot be written.
    """
    check_suffix(path, SUFFIXES)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = PNG_METADATA if path.suffix.lower() == ".png" else None
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)


def colour(number: int) -> str:
    """Colour of the n-th channel or run."""
    return PALETTE[number % len(PALETTE)]
