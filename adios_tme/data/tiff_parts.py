"""Whether a TIFF says where all parts of its picture are: its strips, or its tiles.

Readers show something else in the place of a part that is missing, without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from adios_tme.data.corrupt import CorruptPatchError

#: Where the first part can begin, behind the header.
LEAST_OFFSET = 8
_WIDTH, _HEIGHT, _SAMPLES, _PLANAR = 256, 257, 277, 284
_STRIP_OFFSETS, _STRIP_ROWS = 273, 278
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 322, 323, 324
_SEPARATE = 2


def check_parts(tags: ImageFileDirectory_v2) -> None:
    """Refuse a page of which parts are missing.

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
    found = sum(offset >= LEAST_OFFSET for offset in cast("Sequence[int]", offsets))
    if found < needed:
        raise CorruptPatchError(f"a TIFF that lacks {needed - found} of its {needed} parts")
