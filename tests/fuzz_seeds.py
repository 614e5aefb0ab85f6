"""Good files of every kind, from which fuzzers start: from noise they never pass a signature."""

from __future__ import annotations

import io
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from adios_tme.data.index_builder import build_index
from tests.factories import make_archive, png
from tests.tiffs import tiff


def image(kind: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels).convert(mode), kind, **options)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=kind, **options)
    return stream.getvalue()


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return image("JPEG", exif=exif)


IDS = np.arange(24 * 40).reshape(24, 40)
WIDE = (IDS * 60).astype(np.uint16)
OUTLINES = (
    '<Annotations><Annotation><Regions><Region Type="0" NegativeROA="0"><Vertices>'
    '<Vertex X="2" Y="3"/><Vertex X="20" Y="3"/><Vertex X="20" Y="21"/></Vertices></Region>'
    '<Region Type="2" NegativeROA="1"><Vertices><Vertex X="8" Y="8"/><Vertex X="12" Y="14"/>'
    "</Vertices></Region></Regions></Annotation></Annotations>"
)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.png", png(4), zipfile.ZIP_DEFLATED)
        archive.writestr("b/c.png", png(4))
        with archive.open("d.png", "w", force_zip64=True) as file:
            file.write(png(4))
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.png", f"{'n' * 120}.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(4))
            archive.addfile(info, io.BytesIO(png(4)))
    return stream.getvalue()


def indexed() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        make_archive(Path(folder) / "a.zip", num_patches=2, size_px=4)
        return build_index(Path(folder)).path.read_bytes()


#: By target of `tests.fuzz`.
SEEDS: dict[str, list[Callable[[], bytes]]] = {
    "image": [
        lambda: png(8),
        lambda: image("PNG", "P"),
        lambda: image("JPEG"),
        lambda: image("JPEG", progressive=True),
        lambda: image("TIFF", compression="tiff_lzw"),
        lambda: image("TIFF", compression="jpeg"),
        lambda: image("WEBP"),
        lambda: image("PNG", "RGBA"),
        lambda: saved(Image.fromarray(WIDE), "PNG"),
        lambda: image("TIFF", "CMYK"),
        lambda: tiff(np.zeros((3, 9, 14), np.uint8), ome=True, metadata={"axes": "CYX"}),
        turned_jpeg,
    ],
    "label": [
        lambda: tiff(IDS.astype(np.uint16)),
        lambda: tiff(IDS.astype(np.uint64), compression="zlib"),
        lambda: tiff(IDS.astype(np.float32), tile=(16, 16)),
        lambda: saved(Image.fromarray(WIDE), "PNG"),
        lambda: saved(Image.fromarray(IDS.astype(np.int32)), "TIFF", compression="tiff_lzw"),
    ],
    "outlines": [lambda: OUTLINES.encode()],
    "zip": [zipped],
    "tar": [tarred],
    "index": [indexed],
    "listing": [lambda: pickle.dumps([("a.zip", ["x.png"])]), lambda: pickle.dumps({"a": 1.5})],
}
