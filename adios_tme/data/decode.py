"""From the bytes of an image file to RGB pixels, within limits.

Which decoder takes which format is measured in docs/benchmarks/data.md. Shape legend: H x W pixels,
3 channels.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kornia_rs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from adios_tme.data.corrupt import CorruptPatchError

#: Largest image that is decoded; a declared size is a claim and costs memory before it is checked.
MAX_PIXELS = 1 << 26
#: Most scans of a progressive JPEG; encoders write about ten, each costs a pass over all pixels.
MAX_SCANS = 64
#: JPEGs this many times as large as they are needed are decoded at a quarter or less of their side.
LEAST_FOR_SCALED = 8
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_PNG_START = struct.Struct(">8sL4sLLBBBBB")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = (8, 2)
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_SEGMENT = struct.Struct(">BBH")
_JPEG_FRAME = struct.Struct(">BHHB")
#: Baseline, extended and progressive frames with Huffman coding.
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
_START_OF_SCAN = b"\xff\xda"

Pixels = NDArray[np.uint8]


def decode_image(content: bytes, needed_px: int | None = None) -> Pixels:
    """Decode a PNG, JPEG, WebP or TIFF file to RGB (H, W, 3).

    8-bit RGB PNGs and three-channel JPEGs go to kornia-rs, which is faster than Pillow and gives
    the same pixels; everything else goes to Pillow and is converted to RGB.

    Args:
        content: The file.
        needed_px: Side to which the image will be resized. A JPEG of 8 times that or more is
            decoded at a fraction of its size, not below twice what is needed. Resized, it differs
            from the whole one by less than a level on average. None: always the whole image.

    Raises:
        CorruptPatchError: If it is no image, is damaged, or is larger than the pixel limit.
    """
    png_size = _plain_png_size(content)
    if png_size is not None:
        _check_pixels(*png_size)
        with _decoder_errors("PNG"):
            return np.asarray(kornia_rs.io.decode_image_png_u8(content, png_size, "rgb"))
    if not content.startswith(_JPEG_SIGNATURE):
        return _by_pillow(content)
    if content.count(_START_OF_SCAN) > MAX_SCANS:
        raise CorruptPatchError(f"a JPEG of more than {MAX_SCANS} scans")
    jpeg_size = _plain_jpeg_size(content)
    if jpeg_size is None:
        return _by_pillow(content)
    _check_pixels(*jpeg_size)
    if needed_px is not None and min(jpeg_size) >= LEAST_FOR_SCALED * needed_px:
        return _by_pillow(content, scaled_px=2 * needed_px)
    with _decoder_errors("JPEG"):
        return np.asarray(kornia_rs.io.decode_image_jpegturbo(content, "rgb"))


def decode_file(path: Path) -> Pixels:
    """Decode an image file to RGB (H, W, 3).

    Raises:
        CorruptPatchError: If it cannot be read or decoded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptPatchError(f"cannot be read ({error.strerror})") from error
    return decode_image(content)


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return name.lower().endswith(SUFFIXES)


def _plain_png_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of an 8-bit RGB PNG without interlacing; None for anything else."""
    if len(content) < _PNG_START.size or not content.startswith(_PNG_SIGNATURE):
        return None
    _, _, _, width, height, depth, colour, _, _, interlace = _PNG_START.unpack_from(content)
    if (depth, colour) != _EIGHT_BIT_RGB or interlace:
        return None
    return height, width


def _plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of an 8-bit JPEG of three channels; None for anything else."""
    at = 2
    while at + _JPEG_SEGMENT.size + _JPEG_FRAME.size <= len(content):
        mark, kind, length = _JPEG_SEGMENT.unpack_from(content, at)
        if mark != 0xFF or length < 2:
            return None
        if kind in _JPEG_FRAMES:
            depth, height, width, channels = _JPEG_FRAME.unpack_from(content, at + 4)
            return (height, width) if (depth, channels) == (8, 3) else None
        at += 2 + length
    return None


def _by_pillow(content: bytes, scaled_px: int | None = None) -> Pixels:
    with _decoder_errors("image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd and can be decoded is no damage
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_pixels(image.height, image.width)
            if scaled_px is not None:
                image.draft("RGB", (scaled_px, scaled_px))
            return np.array(image.convert("RGB"))


@contextmanager
def _decoder_errors(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into damage of the patch.

    Pillow's plug-ins let nearly every kind of exception through, and a panic of a Rust decoder
    does not derive from Exception.
    """
    try:
        yield
    except CorruptPatchError:
        raise
    except UnidentifiedImageError as error:
        raise CorruptPatchError("not a PNG, JPEG, WebP or TIFF image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CorruptPatchError(f"larger than {MAX_PIXELS} pixels") from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptPatchError(f"not a whole {what} ({_first_line(error)})") from error


def _check_pixels(height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise CorruptPatchError(f"{width} x {height} px, more than {MAX_PIXELS} pixels or none")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
