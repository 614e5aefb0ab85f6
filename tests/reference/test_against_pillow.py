"""Decoding and resizing against plain Pillow, on made-up and real images."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adios_tme.data.decode import decode_image
from adios_tme.data.resize import resize_image, resize_images

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


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}]
)
def test_every_kind_of_jpeg(options: dict[str, object]) -> None:
    content = encoded("RGB", "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(content), expected)


@pytest.mark.parametrize("size", [16, 37, 224])
def test_resize_is_pillows_antialiased_bicubic(size: int) -> None:
    content = encoded("RGB", "PNG")
    image = Image.open(io.BytesIO(content)).convert("RGB")
    expected = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
    found = resize_image(decode_image(content), size)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1


def test_the_device_resizes_as_the_worker_does() -> None:
    image_BCHW = torch.randint(0, 256, (2, 3, 61, 80), dtype=torch.uint8)
    floats = torch.nn.functional.interpolate(
        image_BCHW.float(), (24, 24), mode="bicubic", antialias=True
    )
    found = resize_images(image_BCHW, 24).int()
    assert (found - floats.round().clamp(0, 255).int()).abs().max() <= 1


def test_a_jpeg_much_too_large_is_decoded_small_and_looks_the_same(real_data: Path) -> None:
    tile = first_tile(sorted((real_data / "tiles").glob("*.zip"))[0])
    large = Image.fromarray(decode_image(tile)).resize((1792, 1792), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    large.save(stream, format="JPEG", quality=90)
    scaled = decode_image(stream.getvalue(), needed_px=224)
    assert scaled.shape == (448, 448, 3)
    assert decode_image(stream.getvalue(), needed_px=225).shape == (1792, 1792, 3)
    expected = np.asarray(large.resize((224, 224), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(resize_image(scaled, 224) - expected).mean() < 1


def test_real_patches(real_data: Path) -> None:
    for path in sorted((real_data / "tiles").glob("*.zip"))[::5]:
        content = first_tile(path)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(decode_image(content), expected, err_msg=str(path))


def first_tile(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0])
