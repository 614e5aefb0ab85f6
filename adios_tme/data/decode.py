"""From the bytes of an image file to RGB pixels, within limits.

Shape legend: H x W pixels, 3 channels.
"""

from __future__ import annotations

import io
import struct
import warnings

import kornia_rs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from adios_tme.data.damage import DamagedPatchError

#: Largest image that is decoded; a declared size is a claim and costs memory before it is checked.
MAX_PIXELS = 1 << 26
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_PNG_START = struct.Struct(">8sL4sLLBBBBB")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = (8, 2)

Pixels = NDArray[np.uint8]


def decode_image(content: bytes) -> Pixels:
    """Decode a PNG, JPEG, WebP or TIFF file to RGB (H, W, 3).

    8-bit RGB PNGs go to kornia-rs, which is several times faster than Pillow and gives the same
    pixels; everything else goes to Pillow and is converted to RGB.

    Raises:
        DamagedPatchError: If it is no image, is damaged, or is larger than the pixel limit.
    """
    size = _plain_png_size(content)
    if size is None:
        return _by_pillow(content)
    _check_pixels(*size)
    try:
        return np.asarray(kornia_rs.io.decode_image_png_u8(content, size, "rgb"), dtype=np.uint8)
    except Exception as error:  # kornia-rs raises no narrower type
        raise DamagedPatchError(f"not a whole PNG ({_first_line(error)})") from error


def resize_image(pixels: Pixels, img_size: int) -> Pixels:
    """Resize to a square by Pillow's antialiased bicubic filter."""
    if pixels.shape[:2] == (img_size, img_size):
        return pixels
    resized = Image.fromarray(pixels).resize((img_size, img_size), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _plain_png_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of an 8-bit RGB PNG without interlacing; None for anything else."""
    if len(content) < _PNG_START.size or not content.startswith(_PNG_SIGNATURE):
        return None
    _, _, _, width, height, depth, colour, _, _, interlace = _PNG_START.unpack_from(content)
    if (depth, colour) != _EIGHT_BIT_RGB or interlace:
        return None
    return height, width


def _by_pillow(content: bytes) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                _check_pixels(image.height, image.width)
                return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DamagedPatchError("not a PNG, JPEG, WebP or TIFF image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DamagedPatchError(f"larger than {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise DamagedPatchError(f"cannot be decoded ({_first_line(error)})") from error


def _check_pixels(height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise DamagedPatchError(f"{width} x {height} px, more than {MAX_PIXELS} pixels or none")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
