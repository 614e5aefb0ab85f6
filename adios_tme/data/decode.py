"""From the bytes of an image file to RGB pixels, within limits.

Which decoder takes which format is measured in docs/benchmarks/data.md. Shape legend: H x W pixels,
3 channels.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kornia_rs
import numpy as np
from PIL import Image, UnidentifiedImageError

from adios_tme.data.colour import ORIENTATION, orientation_of, samples_of, to_rgb, turned
from adios_tme.data.colour import Pixels as Pixels  # where readers of images look for it
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.pages import pages_of_picture

#: Largest image that is decoded; a declared size costs memory before it can be checked.
MAX_PIXELS = 1 << 26
#: Most scans of a progressive JPEG; encoders write about ten, each costs a pass over all pixels.
MAX_SCANS = 64
#: JPEGs this many times as large as they are needed are decoded at a quarter or less of their side.
LEAST_FOR_SCALED = 8
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", *TIFF_SUFFIXES)

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_PNG_START = struct.Struct(">8sL4sLLBBBBB")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = struct.Struct(">L4s")
_PNG_END = b"IEND"
#: Bit in the first letter of a chunk's kind, of those that pixels do not depend on.
_ANCILLARY = 0x20
_EIGHT_BIT_RGB = (8, 2)
#: Transparency, orientation, animation: chunks of a PNG that need more than its pixels.
_TELLING_CHUNKS = (b"tRNS", b"eXIf", b"acTL")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_SEGMENT = struct.Struct(">BBH")
_JPEG_FRAME = struct.Struct(">BHHB")
#: Baseline, extended and progressive frames with Huffman coding.
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
_JPEG_APP1 = 0xE1
_START_OF_SCAN = b"\xff\xda"
_EXIF_SIGNATURE = b"Exif\0\0"
_NO_IMAGE = "not a PNG, JPEG, WebP or TIFF image"
_UNREAD_TIFF = "a TIFF of a kind that is not read (its bits, colours or packing)"


def decode_image(content: bytes, needed_px: int | None = None) -> Pixels:
    """Decode a PNG, JPEG, WebP or TIFF file to RGB (H, W, 3).

    8-bit RGB PNGs and three-channel JPEGs go to kornia-rs, which is faster than Pillow and gives
    the same pixels; everything else, and whatever is transparent or turned, goes to Pillow and is
    converted by one rule.

    Args:
        content: The file.
        needed_px: Side to which the image will be resized. A JPEG of 8 times that or more is
            decoded at a fraction of its size, not below twice what is needed. Resized, it differs
            from the whole one by less than a level on average. None: always the whole image.

    Raises:
        CorruptPatchError: If it is no image, is damaged, is larger than the pixel limit, or is of a
            kind whose colours are not certain.
    """
    png_size = _plain_png_size(content)
    if png_size is not None:
        check_pixels(*png_size)
        with _decoder_errors("PNG"):
            return np.asarray(kornia_rs.io.decode_image_png_u8(content, png_size, "rgb"))
    if not content.startswith(_JPEG_SIGNATURE):
        return _by_pillow(content)
    if content.count(_START_OF_SCAN) > MAX_SCANS:
        raise CorruptPatchError(f"a JPEG of more than {MAX_SCANS} scans")
    jpeg_size = _plain_jpeg_size(content)
    if jpeg_size is None:
        return _by_pillow(content)
    check_pixels(*jpeg_size)
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
    """Whether a file's name, with or without folders, is more than a suffix and ends in an image's.

    `adios_tme.data.selection` asks the same of a million names at once.
    """
    last = name.replace("\\", "/").rpartition("/")[2].lower()
    return last.endswith(SUFFIXES) and last not in SUFFIXES


def _plain_png_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of an 8-bit RGB PNG that only has to be decoded; None for anything else."""
    if len(content) < _PNG_START.size or not content.startswith(_PNG_SIGNATURE):
        return None
    _, _, _, width, height, depth, colour, _, _, interlace = _PNG_START.unpack_from(content)
    if (depth, colour) != _EIGHT_BIT_RGB or interlace:
        return None
    for kind, at, _ in _png_chunks(content):
        if kind in _TELLING_CHUNKS:
            return None
        if kind in _TEXT_CHUNKS and content.startswith(_ORIENTED_TEXTS, at):
            return None
    return height, width


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and length of every chunk of a PNG."""
    kind, at = b"", len(_PNG_SIGNATURE)
    while at + _PNG_CHUNK.size <= len(content) and kind != _PNG_END:
        length, kind = _PNG_CHUNK.unpack_from(content, at)
        at += _PNG_CHUNK.size
        yield kind, at, length
        at += length + 4


def _check_png(content: bytes) -> None:
    """Refuse a PNG by its checksums, which Pillow does not look at where the pixels are."""
    whole = memoryview(content)
    for kind, at, length in _png_chunks(content):
        stored = content[at + length : at + length + 4]
        if kind[0] & _ANCILLARY or len(stored) < 4:  # what is cut off, Pillow misses by itself
            continue
        if zlib.crc32(whole[at - 4 : at + length]) != int.from_bytes(stored):
            raise CorruptPatchError(f"not a whole PNG (wrong CRC of {kind.decode('latin-1')})")


def _plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of an upright 8-bit JPEG of three channels; None for anything else."""
    at, size = 2, None
    while at + _JPEG_SEGMENT.size <= len(content):
        mark, kind, length = _JPEG_SEGMENT.unpack_from(content, at)
        if mark != 0xFF or length < 2:
            return None
        if kind == _START_OF_SCAN[1]:
            return size
        if kind in _JPEG_FRAMES and at + 4 + _JPEG_FRAME.size <= len(content):
            depth, height, width, channels = _JPEG_FRAME.unpack_from(content, at + 4)
            if (depth, channels) != (8, 3):
                return None
            size = height, width
        elif kind == _JPEG_APP1 and _turns(content[at + 4 : at + 2 + length]):
            return None
        at += 2 + length
    return size


def _turns(app1: bytes) -> bool:
    """Whether a JPEG's segment of facts may say that the image is stored turned."""
    if not app1.startswith(_EXIF_SIGNATURE):
        return b"Orientation" in app1
    exif = Image.Exif()
    try:
        with _no_warnings():
            exif.load(app1)
            return bool(exif.get(ORIENTATION, 1) != 1)
    except Exception:  # Pillow raises nearly anything; `orientation_of` ignores damaged facts alike
        return False


@contextmanager
def _no_warnings() -> Iterator[None]:
    """For Pillow's: what is odd and can be decoded is no damage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _by_pillow(content: bytes, scaled_px: int | None = None) -> Pixels:
    with open_image(content) as image:
        if scaled_px is not None:
            image.draft("RGB", (scaled_px, scaled_px))
        pages = []
        for page in pages_of_picture(image):
            image.seek(page)
            samples = samples_of(image, content)
            orientation = orientation_of(image)
            pages.append(turned(to_rgb(image, samples), orientation))
        # Three pages are the three colours, each read as grey.
        return pages[0] if len(pages) == 1 else np.stack([page[..., 0] for page in pages], axis=2)


@contextmanager
def open_image(content: bytes) -> Iterator[Image.Image]:
    """Open an image file with Pillow; what is done with it inside may raise what it likes.

    Raises:
        CorruptPatchError: If it is no image, is damaged, or is larger than the pixel limit.
    """
    what = "TIFF" if content.startswith(TIFF_SIGNATURES) else "image"
    if content.startswith(_PNG_SIGNATURE):
        _check_png(content)
    with _decoder_errors(what), _no_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            check_pixels(image.height, image.width)
            yield image


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
        raise CorruptPatchError(_UNREAD_TIFF if what == "TIFF" else _NO_IMAGE) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CorruptPatchError(f"larger than {MAX_PIXELS} pixels") from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptPatchError(f"not a whole {what} ({_first_line(error)})") from error


def check_pixels(height: int, width: int) -> None:
    """Raise CorruptPatchError if an image of such a size would not be decoded."""
    if not 0 < height * width <= MAX_PIXELS:
        raise CorruptPatchError(f"{width} x {height} px, more than {MAX_PIXELS} pixels or none")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
