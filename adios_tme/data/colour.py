"""From a picture in any number format and colour model to RGB pixels of 8 bits: one rule for all.

What happens to each format is a table in docs/data.md. Shape legend: H x W pixels, 3 channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.tiff_parts import check_parts

Pixels = NDArray[np.uint8]

ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA, _KIND = 258, 262, 284, 338, 339
_UNSIGNED, _SIGNED = 1, 2
_COLOUR_MAP = 320
_PREDICTOR = 317
_WHITE_IS_ZERO, _PALETTE = 0, 3
_SEPARATE = 2

#: Where the bit depth stands in a PNG.
_PNG_DEPTH_AT = 24
#: Samples of 16 bits below this share of their range are of 8 or 12 bits, in a file of 16.
_LEAST_SHARE = 1 / 16
#: Floats are 0 to 1, or 0 to 255 if one of them reaches this far; between is neither.
_LEAST_OF_BYTES = 16

_GREY_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
#: Orientations in which rows are columns, the last row comes first, the last column comes first.
_SWAPPED_FROM, _UPSIDE_DOWN, _MIRRORED = 5, (3, 4, 7, 8), (2, 3, 6, 7)
_READ_AS_RGB = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "PA", "RGBA", *_PREMULTIPLIED)


class Samples(NamedTuple):
    """What Pillow's mode does not tell of the numbers in a file."""

    bits: int = 8
    kind: int = _UNSIGNED
    """TIFF's sample format: 1 unsigned, 2 signed, 3 floating point."""
    white_is_zero: bool = False

    @property
    def is_signed(self) -> bool:
        """Whether values may be below zero."""
        return self.kind == _SIGNED


def samples_of(image: Image.Image, content: bytes) -> Samples:
    """The numbers of an image (or the page at which it stands), from the header of its file.

    Raises:
        CorruptPatchError: If Pillow would read them wrongly without a word, or not all.
    """
    if image.format == "PNG":
        return Samples(bits=content[_PNG_DEPTH_AT])
    if image.format != "TIFF":
        return Samples()
    tags = image.tag_v2  # type: ignore[attr-defined]
    check_parts(tags)
    bits = max(_several(tags.get(_BITS, 1)))
    if 0 in _several(tags.get(_EXTRA, ())):
        raise CorruptPatchError("a TIFF with a channel of unknown meaning beside its colours")
    if tags.get(_PLANAR) == _SEPARATE and bits > 8:
        raise CorruptPatchError(f"a TIFF of {bits} bits whose colours are stored one by one")
    if tags.get(_PHOTOMETRIC) == _PALETTE and max(tags.get(_COLOUR_MAP, (256,))) < 256:
        raise CorruptPatchError("a TIFF whose palette has 8 bits instead of 16")
    if tags.get(_PREDICTOR, 1) != 1 and image.info["compression"] == "packbits":
        # Pillow takes the differences for the samples themselves; other readers add them up.
        raise CorruptPatchError("a TIFF that packs differences of samples with PackBits")
    kind = max(_several(tags.get(_KIND, _UNSIGNED)))
    if image.mode in ("F", "I") and tags.prefix == b"MM" and image.info["compression"] != "raw":
        raise CorruptPatchError(f"a packed TIFF of {bits} bits, big end first")
    return Samples(bits, kind, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def to_rgb(image: Image.Image, samples: Samples) -> Pixels:
    """Convert an image to RGB (H, W, 3) of 8 bits.

    Of 16 bits the upper eight are taken; what is transparent becomes white; a colour profile is
    not applied.

    Raises:
        CorruptPatchError: If that is not certain to give the colours that were meant.
    """
    if image.mode == "F":
        return _three_channels(_grey_of_floats(image, samples))
    if image.mode in _GREY_OF_16_BITS:
        return _three_channels(_high_bytes(image, samples))
    if image.mode == "I" or samples.is_signed:
        sign = "signed" if samples.is_signed else "whole"
        raise CorruptPatchError(f"{sign} numbers of {samples.bits} bits, whose range is not known")
    if image.mode not in _READ_AS_RGB:
        raise CorruptPatchError(f"colours of the model {image.mode}")
    image = _with_alpha(image, samples)
    if samples.bits > 8:
        bands = [band for band in image.getbands() if band != "A"]
        highest = max(np.asarray(image.getchannel(band)).max() for band in bands)
        _check_share(int(highest) / 256, samples)
    colours = image.convert("RGB")
    if image.mode.endswith("A"):
        colours = _over_white(colours, image.getchannel("A"))
    return np.array(colours)


def orientation_of(image: Image.Image) -> int:
    """How an image is turned (1 to 8, as EXIF has it), once it is loaded; 1: not at all.

    Pillow has turned a TIFF by then, and its tag is gone.
    """
    image.load()
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises nearly anything; damaged facts are no damaged pixels
        return 1


def turned(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array (H, W, ...) as its orientation tag says that it is seen; odd tags turn nothing."""
    if orientation not in range(2, 9):
        return stored
    seen = stored.swapaxes(0, 1) if orientation >= _SWAPPED_FROM else stored
    if orientation in _UPSIDE_DOWN:
        seen = seen[::-1]
    if orientation in _MIRRORED:
        seen = seen[:, ::-1]
    return np.ascontiguousarray(seen)


def scale_to_bytes(lowest: float, highest: float) -> int:
    """By what floating-point samples are multiplied to reach from 0 to 255.

    Raises:
        ValueError: If they are neither 0 to 1 nor 0 to 255.
    """
    if lowest >= 0 and highest <= 1:
        return 255
    if lowest > -0.5 and _LEAST_OF_BYTES <= highest < 255.5:
        return 1
    raise ValueError(
        f"floating-point samples from {lowest:g} to {highest:g}, expected 0 to 1 or 0 to 255"
    )


def _grey_of_floats(image: Image.Image, samples: Samples) -> Pixels:
    if samples.white_is_zero:
        raise CorruptPatchError("floating-point samples of which 0 is white")
    values = np.asarray(image)
    try:
        scale = scale_to_bytes(float(values.min()), float(values.max()))
    except ValueError as error:
        raise CorruptPatchError(str(error)) from error
    return (values * scale).round().clip(0, 255).astype(np.uint8)


def _high_bytes(image: Image.Image, samples: Samples) -> Pixels:
    values = np.asarray(image)
    _check_share(float(values.max()) / 2**samples.bits, samples)
    high = (values >> (samples.bits - 8)).astype(np.uint8)
    if samples.white_is_zero:
        high = 255 - high
    clear = image.info.get("transparency")
    if clear is not None:
        high[values == clear] = 255
    return high


def _three_channels(grey_HW: Pixels) -> Pixels:
    return np.repeat(grey_HW[..., None], 3, axis=2)


def _check_share(highest: float, samples: Samples) -> None:
    if highest < _LEAST_SHARE:
        raise CorruptPatchError(
            f"samples of {samples.bits} bits that use under a sixteenth of their range, as those "
            f"of a file of fewer bits do"
        )


def _with_alpha(image: Image.Image, samples: Samples) -> Image.Image:
    """An image in which every way to be transparent became an alpha channel."""
    if image.mode in _PREMULTIPLIED:
        return image.convert(_PREMULTIPLIED[image.mode])
    clear = image.info.get("transparency")
    if clear is None:
        return image
    if image.mode == "RGB" and samples.bits > 8:
        raise CorruptPatchError(f"a transparent colour in samples of {samples.bits} bits")
    if image.mode == "L" and samples.bits < 8:
        image.info["transparency"] = clear * 255 // (2**samples.bits - 1)
    return image.convert("RGBA")


def _over_white(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    if alpha.getextrema() == (255, 255):
        return colours
    white = Image.new("RGB", colours.size, "white")
    white.paste(colours, mask=alpha)
    return white


def _several(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
