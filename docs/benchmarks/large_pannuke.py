"""Write generated tissue as a fold of PanNuke, as large as the largest one that is released.

python docs/benchmarks/large_pannuke.py pannuke --images 2722
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from adios_tme.data.synthetic import render_tissue

SIZE_PX = 256
NUM_CHANNELS = 6
CONNECTIVE, BACKGROUND = 2, 5
BATCH = 32


def main() -> None:
    """Write images, masks and tissue names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--images", type=int, default=2722)
    asked = parser.parse_args()
    folder = asked.target / "fold1"
    folder.mkdir(parents=True, exist_ok=True)
    shape = (asked.images, SIZE_PX, SIZE_PX)
    images = open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, 3))
    masks = open_memmap(folder / "masks.npy", "w+", np.uint16, (*shape, NUM_CHANNELS))
    for first in range(0, asked.images, BATCH):
        rows = slice(first, min(first + BATCH, asked.images))
        images[rows], labels = render_tissue(rows.stop - first, SIZE_PX, seed=first)
        masks[rows, ..., CONNECTIVE] = labels
        masks[rows, ..., BACKGROUND] = labels == 0
    np.save(folder / "types.npy", np.array(["Breast", "Colon"])[np.arange(asked.images) % 2])


if __name__ == "__main__":
    main()
