"""Images that must be refused."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

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


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "I;16"])
def test_a_flipped_byte_of_a_png_is_an_error_or_changes_nothing(mode: str) -> None:
    values = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 7 % 251
    deep, grey = Image.fromarray(values * 257), Image.fromarray(values.astype(np.uint8))
    stream = io.BytesIO()
    (deep if mode == "I;16" else grey.convert(mode)).save(stream, "PNG")
    whole = stream.getvalue()
    expected = decode_image(whole)
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 0x10
        with suppress(CorruptPatchError):
            np.testing.assert_array_equal(decode_image(bytes(content)), expected)


def test_what_follows_a_png_is_not_read() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(stream, "PNG")
    expected = decode_image(stream.getvalue())
    np.testing.assert_array_equal(
        decode_image(stream.getvalue() + b"xxxxIDATmore than it"), expected
    )
