"""From the numbers of a label to instance ids: one rule for every data set.

Shape legend: H x W pixels.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from adios_tme.data.colour import ORIENTATION, orientation_of, samples_of, turned
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import TIFF_SIGNATURES, check_pixels, open_image
from adios_tme.data.pages import pages_of_picture
from adios_tme.data.tiff_parts import has_all_parts
from adios_tme.errors import DataError
from adios_tme.inference.nuclei import Labels

#: Stands where nobody annotated: such pixels count in no score.
VOID = -1
#: Ids up to here stay as they are; a table of all smaller ones is small.
MOST_KEPT = 1 << 20
#: A pyramid has a dozen; a stack is no label map.
MOST_PAGES = 64

Values = NDArray[Any]


def read_label_map(path: Path) -> Labels:
    """Read instance ids from a greyscale PNG or TIFF, turned as its orientation tag says.

    Returns:
        (H, W) ids, 0 where there is no nucleus, `VOID` where the file has numbers below 0.

    Raises:
        DataError: If it cannot be read, is a colour image or a stack, has 8 bits, or holds numbers
            that are no ids.
    """
    try:
        return instance_ids(_one_channel(_values(path.read_bytes())))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Write it again.") from error
    except (CorruptPatchError, ValueError) as error:
        raise DataError(
            f"{path}: {error}. Write instance ids as a 16-bit greyscale PNG or TIFF."
        ) from error


def instance_ids(values_HW: Values) -> Labels:
    """Ids as int32, whatever numbers they come as.

    Whole floats are ids. Ids beyond a million are numbered anew from 1 on, in their order, all of
    the image. Numbers below 0 are `VOID`.

    Raises:
        ValueError: If they are not whole, not finite, or floats too large to tell ids apart.
    """
    values = _whole(values_HW) if values_HW.dtype.kind == "f" else values_HW
    if values.dtype.kind not in "biu":
        raise ValueError(f"holds values of the type {values.dtype}, not whole numbers")
    if int(values.max(initial=0)) > MOST_KEPT:
        labels = np.zeros(values.shape, dtype=np.int32)
        there = values > 0
        labels[there] = np.unique(values[there], return_inverse=True)[1].ravel() + 1
    else:
        labels = values.astype(np.int32)
    if values.dtype.kind == "i":
        labels[values < 0] = VOID
    return labels


def _whole(values_HW: Values) -> NDArray[np.int64]:
    if not np.isfinite(values_HW).all():
        raise ValueError("holds floating-point values that are not finite")
    floats = values_HW.astype(np.float64)
    fractions = floats[floats != floats.round()]
    if fractions.size:
        raise ValueError(f"holds fractions such as {fractions[0]:g}, where ids are whole numbers")
    mantissa = np.finfo(values_HW.dtype).nmant + 1
    if floats.max(initial=0) > 2**mantissa:
        raise ValueError(
            f"holds ids up to {floats.max():.0f} as {values_HW.dtype}, which tells them apart "
            f"up to {2**mantissa} alone"
        )
    return floats.astype(np.int64)


def _values(content: bytes) -> Values:
    if content.startswith(TIFF_SIGNATURES):
        # It raises anything. Pillow knows packings that it does not, and says what is wrong.
        with suppress(Exception), _silent(tifffile.logger()):
            return _by_tifffile(content)
    return _by_pillow(content)


def _by_tifffile(content: bytes) -> Values:
    """The first series of a TIFF, with numbers of any width."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        with suppress(IndexError):
            # A chain of pages that ends in itself goes on for ever.
            file.pages[MOST_PAGES]
            raise CorruptPatchError(f"has more than {MOST_PAGES} pages")
        (series,) = [each for each in file.series if each.shape[-2:] == file.series[0].shape[-2:]]
        check_pixels(series.size, 1)
        if series.keyframe.samplesperpixel > 1:
            raise CorruptPatchError("is a colour image")
        if not has_all_parts(series.keyframe, len(content)):
            raise CorruptPatchError("lacks parts, in whose place tifffile puts zeros")
        orientation = series.keyframe.tags.get(ORIENTATION)
        values: Values = series.asarray()
    axes = tuple(axis for axis, length in enumerate(values.shape[:-2]) if length == 1)
    return turned(values.squeeze(axes), 1 if orientation is None else int(orientation.value))


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """For what tifffile says of a file that it does not name, and that is then checked."""
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def _by_pillow(content: bytes) -> Values:
    with open_image(content) as image:
        if len(pages_of_picture(image)) > 1:
            raise CorruptPatchError("is a colour image of several pages")
        image.seek(0)
        samples = samples_of(image, content)
        orientation = orientation_of(image)
        values = np.array(image)
    if image.mode == "I" and not samples.is_signed:
        values = values.view(np.uint32)
    return turned(values, orientation)


def _one_channel(values: Values) -> Values:
    if values.ndim != 2:
        shape = " x ".join(map(str, values.shape))
        raise ValueError(f"is a colour image or a stack ({shape})")
    if values.dtype.itemsize == 1:
        raise ValueError("has 8 bits, which hold 255 nuclei at most")
    return values
