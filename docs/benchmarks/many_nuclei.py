"""Write the GeoJSON of many nuclei as `adios-tme segment` does, and check it with shapely.

python docs/benchmarks/many_nuclei.py --nuclei 100000

Masks are the true ones of generated tissue, so that no model takes part: what is timed is what
comes after it, from soft masks to the files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shapely.geometry import shape

from adios_tme.benchmark.machine import PeakMemory
from adios_tme.data.synthetic import render_tissue
from adios_tme.environment import describe_machine
from adios_tme.inference.segment.blocks import Block
from adios_tme.inference.segment.files import nuclei_files
from adios_tme.inference.segment.nuclei import Chosen, nuclei_by_block
from adios_tme.inference.segment.view import Box, ImageView
from adios_tme.terminal import terminal

#: Pieces of tissue along a side of a block.
ACROSS = 4
MPP = 0.25


def main() -> None:
    """Write nuclei, and say how long that took, in how much memory, and whether they are valid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=int, default=100_000)
    parser.add_argument("--piece-px", type=int, default=512, help="side of a piece of tissue")
    given = parser.parse_args()
    device = torch.device("cpu")
    soft_HW = one_block(given.piece_px)
    with tempfile.TemporaryDirectory() as folder:
        geojson = Path(folder, "nuclei.geojson")
        memory, start = PeakMemory(device), (time.perf_counter(), time.process_time())
        num_nuclei = write(geojson, soft_HW, given.nuclei)
        seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        peak = memory.read()
        collection = json.loads(geojson.read_text())
        size = geojson.stat().st_size
    features = collection["features"]
    valid = sum(shape(each["geometry"]).is_valid for each in features)
    ids = len({each["id"] for each in features})
    machine = describe_machine(device)
    extra = "unknown" if peak is None else f"{peak / 2**20:.0f} MiB"
    terminal().print(
        f"{num_nuclei:,} nuclei in {seconds:.1f} s ({cpu:.1f} s of CPU), {size / 2**20:.0f} MiB of "
        f"GeoJSON; {valid:,} valid polygons, {ids:,} ids; {extra} of memory more than before. "
        f"{machine['processor']}, {machine['threads']} threads."
    )


def one_block(piece_px: int) -> NDArray[np.float32]:
    """The true mask of a block of generated tissue (H, W)."""
    _, labels = render_tissue(ACROSS**2, piece_px, seed=0)
    rows = labels.reshape(ACROSS, ACROSS, piece_px, piece_px).swapaxes(1, 2)
    side = ACROSS * piece_px
    mask: NDArray[np.float32] = (rows.reshape(side, side) > 0).astype(np.float32)
    return mask


def write(geojson: Path, soft_HW: NDArray[np.float32], wanted: int) -> int:
    """Write the nuclei of block after block until they are enough; their number."""
    side, width = len(soft_HW), 2**20
    pixels = np.broadcast_to(np.uint8(0), (side, width, 3))
    view = ImageView(pixels, MPP, None)

    def blocks() -> Iterator[Block]:
        for number in itertools.count():
            box = Box(number * side, 0, (number + 1) * side, side)
            yield Block(box, box, pixels[:, :side], soft_HW[None])

    with nuclei_files(geojson, geojson.with_suffix(".csv"), "nuclei") as files:
        for found in nuclei_by_block(blocks(), view, Chosen(channel=0, threshold=0.5)):
            files.add(found[: wanted - files.num_nuclei])
            if files.num_nuclei == wanted:
                break
    return files.num_nuclei


if __name__ == "__main__":
    main()
