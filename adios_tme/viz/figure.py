"""What all pictures share: no window, one palette, PNG or SVG by the file's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adios_tme.files import PNG_METADATA, check_suffix

SUFFIXES = (".png", ".svg")
DOTS_PER_INCH = 120
#: Of pictures in rows and columns.
CELL_INCHES = 1.7
GAP = 0.03


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, making its folder; its parts stay where they are now.

    Raises:
        ConfigError: If the name has another suffix.
        OSError: If the file cannot be written.
    """
    check_suffix(path, SUFFIXES)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = PNG_METADATA if path.suffix.lower() == ".png" else None
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)
    figure.set_layout_engine("none")  # finding a place for all takes longer than drawing


def image_grid(
    num_rows: int, titles: Sequence[str], title: str = "", colours: Sequence[str] = ()
) -> tuple[Figure, NDArray[np.object_]]:
    """Square cells without axes, each column under its title.

    Args:
        num_rows: Rows of cells.
        titles: One a column.
        title: Stands above the picture.
        colours: Of the columns' titles; none: black.
    """
    head_inches = 0.62 if title else 0.3
    height = num_rows * CELL_INCHES + head_inches
    figure = Figure(figsize=(len(titles) * CELL_INCHES, height))
    cells = figure.subplots(num_rows, len(titles), squeeze=False)
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - head_inches / height, wspace=GAP, hspace=GAP
    )
    for cell in cells.flat:
        cell.set_axis_off()
    for number, (cell, name) in enumerate(zip(cells[0], titles, strict=True)):
        cell.set_title(name, fontsize=9, color=colours[number] if colours else "black")
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.1 / height)
    return figure, cells
