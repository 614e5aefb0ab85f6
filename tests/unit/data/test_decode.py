"""Images that must be refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import decode_image
from tests.factories import png


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header states a size."""
    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">L", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + b"IHDR" + header + check + png()[33:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a PNG"),
        (b"just text", "not a PNG"),
        (png()[: len(png()) // 2], "not a whole PNG"),
        (claiming(1 << 20, 1 << 20), "more than"),
        (claiming(0, 5), "or none"),
        (claiming(64, 64), "not a whole PNG"),
    ],
)
def test_damage_is_one_kind_of_error(content: bytes, reason: str) -> None:
    with pytest.raises(CorruptPatchError, match=reason):
        decode_image(content)


def test_a_truncated_jpeg_is_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(stream, format="JPEG")
    with pytest.raises(CorruptPatchError, match="not a whole JPEG"):
        decode_image(stream.getvalue()[:300])


def test_a_flipped_byte_is_an_error_or_an_image() -> None:
    whole = png(16)
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 0x55
        try:
            pixels = decode_image(bytes(content))
        except CorruptPatchError:
            continue
        assert pixels.ndim == 3
