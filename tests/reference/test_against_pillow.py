"""Decoding and resizing against plain Pillow, on made-up and real images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adios_tme.data.decode import decode_image, resize_image

MODES = ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"]


def encoded(mode: str, kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, format=kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, "PNG") for mode in MODES if mode != "CMYK"]
    + [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGB", "TIFF")],
)
def test_every_kind_of_image(mode: str, kind: str) -> None:
    content = encoded(mode, kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(content), expected)


@pytest.mark.parametrize("size", [16, 37, 224])
def test_resize_is_pillows_antialiased_bicubic(size: int) -> None:
    content = encoded("RGB", "PNG")
    image = Image.open(io.BytesIO(content)).convert("RGB")
    expected = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize_image(decode_image(content), size), expected)


def test_real_patches(real_data: Path) -> None:
    for path in sorted((real_data / "tiles").glob("*.zip"))[::5]:
        with zipfile.ZipFile(path) as archive:
            name = archive.namelist()[0]
            content = archive.read(name)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(decode_image(content), expected, err_msg=f"{path} {name}")
