"""TIFF files as tifffile lays them out: packed or not, in strips or tiles, of either byte order."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile
from hypothesis import reject
from hypothesis import strategies as st
from numpy.typing import NDArray

Layout = dict[str, Any]

PLAIN: Layout = {
    "compression": None,
    "predictor": False,
    "tile": None,
    "bigtiff": False,
    "byteorder": "<",
    "orientation": None,
}

#: Packings, each with and without differences of samples, which only a packing has.
_PACKINGS = ((None, False), *itertools.product(("zlib", "lzw", "packbits"), (False, True)))

layouts = st.builds(
    lambda packing, **rest: {"compression": packing[0], "predictor": packing[1], **rest},
    packing=st.sampled_from(_PACKINGS),
    tile=st.sampled_from((None, (16, 16))),
    bigtiff=st.booleans(),
    byteorder=st.sampled_from("<>"),
    orientation=st.sampled_from((None, *range(1, 9))),
)


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    """A TIFF in memory, grey unless another ``photometric`` is given."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **{"photometric": "minisblack", **options})
    return stream.getvalue()


def with_second(content: bytes, tags: Sequence[int], number: int) -> bytes:
    """A little-endian TIFF with another number for the second of its strips or tiles."""
    changed = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        for found in (file.pages.first.tags[tag] for tag in tags):
            size = found.valuebytecount // found.count
            at = found.valueoffset + size
            changed[at : at + size] = number.to_bytes(size, "little")
    return bytes(changed)


def half_as_many(content: bytes, tag: int) -> bytes:
    """A little-endian TIFF that states half of the numbers of a tag."""
    changed = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        found = file.pages.first.tags[tag]
    struct.pack_into("<L", changed, found.offset + 4, found.count // 2)
    return bytes(changed)


def laid_out(values: NDArray[Any], layout: Layout, **options: Any) -> bytes:
    """A TIFF with one of `layouts`; rejects the example if tifffile never writes such a file."""
    if layout["predictor"] and values.dtype in (np.uint64, np.int64):
        reject()  # no predictor takes whole numbers of 64 bits
    how = {key: value for key, value in layout.items() if key != "orientation"}
    if layout["orientation"] is not None:
        options["extratags"] = [(274, "H", 1, layout["orientation"], True)]
    return tiff(values, **how, **options)
