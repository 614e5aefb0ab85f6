"""Whether a TIFF says where all parts of its picture are: its strips, or its tiles.

Readers show something else in the place of a part that is missing, without an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from adios_tme.data.corrupt import CorruptPatchError

if TYPE_CHECKING:
    from tifffile import TiffPage

#: Where the first part can begin, behind the header.
_LEAST_OFFSET = 8
_WIDTH, _HEIGHT, _SAMPLES, _PLANAR = 256, 257, 277, 284
_STRIP_OFFSETS, _STRIP_ROWS, _STRIP_COUNTS = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_COMPRESSION_NONE = 1
_SEPARATE = 2


def check_parts(tags: ImageFileDirectory_v2) -> None:
    """Refuse a page, as Pillow has read it, of which parts are missing.

    Raises:
        CorruptPatchError: Saying how many.
    """
    width, height = tags[_WIDTH], tags[_HEIGHT]
    if _TILE_OFFSETS in tags:
        offsets = tags[_TILE_OFFSETS]
        needed = -(-width // tags[_TILE_WIDTH]) * -(-height // tags[_TILE_HEIGHT])
    else:
        offsets = tags.get(_STRIP_OFFSETS, ())
        needed = -(-height // (tags.get(_STRIP_ROWS) or height))
    if tags.get(_PLANAR) == _SEPARATE:
        needed *= tags.get(_SAMPLES, 1)
    found = sum(offset >= _LEAST_OFFSET for offset in cast("Sequence[int]", offsets))
    if found < needed:
        raise CorruptPatchError(f"a TIFF that lacks {needed - found} of its {needed} parts")


def has_all_parts(page: TiffPage, num_bytes: int) -> bool:
    """Whether each part of a page, as tifffile has read it, is in the file or said to be left out.

    Args:
        page: The page; tifffile puts zeros in the place of what is missing.
        num_bytes: Of the file.
    """
    tiled = _TILE_OFFSETS in page.tags
    offsets = page.tags[_TILE_OFFSETS if tiled else _STRIP_OFFSETS].value
    counts = page.tags[_TILE_COUNTS if tiled else _STRIP_COUNTS].value
    needed = math.prod(page.chunked)
    if not len(offsets) == len(counts) == needed:
        return False
    least = [1] * needed
    if page.compression == _COMPRESSION_NONE:
        whole, rows = page.bitspersample * math.prod(page.chunks) // 8, page.chunks[0]
        last_rows = rows if tiled else page.imagelength - rows * (needed - 1)
        least = [*[whole] * (needed - 1), whole * last_rows // rows]
    return all(
        offset == count == 0
        or (offset >= _LEAST_OFFSET and count >= size and offset + count <= num_bytes)
        for offset, count, size in zip(offsets, counts, least, strict=True)
    )
