"""Pictures inside a page: shrunk, compressed, and as many as there is room for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, UnidentifiedImageError

from adios_tme.data.spread import spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Longest side in pixels, and quality of WebP; masks stay readable, and a picture of 300 KB as PNG
#: takes about 50.
LONGEST_PX = 1100
QUALITY = 72
#: Pictures that a slider goes through at most.
MOST_PICTURES = 60


class Embedded(NamedTuple):
    """A picture as a page holds it."""

    uri: str
    width: int
    height: int


class Series(NamedTuple):
    """Pictures over iterations."""

    pictures: list[tuple[int, Embedded]]
    """With their iterations, oldest first."""
    num_left_out: int


def embed(picture: Image.Image) -> Embedded:
    """Compress a picture and write it as a ``data:`` address."""
    shown = picture.convert("RGB")
    shown.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, format="WEBP", quality=QUALITY, method=3)
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return Embedded(f"data:image/webp;base64,{text}", *shown.size)


def embed_figure(figure: Figure) -> Embedded:
    """The same of a figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    with Image.open(stream) as picture:
        return embed(picture)


def embed_series(paths: Sequence[Path], budget_bytes: int) -> Series:
    """Pictures whose names end in their iteration, evenly taken, as many as a budget allows.

    The first and the last are always among them. One that cannot be read is left out.
    """
    count = min(len(paths), MOST_PICTURES)
    while True:
        pictures = [
            (int(path.stem.rpartition("_")[2]), picture)
            for path in spread(paths, count)
            if (picture := _embed_file(path)) is not None
        ]
        size = sum(len(picture.uri) for _, picture in pictures)
        if size <= budget_bytes or count <= 2:
            return Series(pictures, len(paths) - len(pictures))
        count = max(2, min(count - 1, int(count * budget_bytes / size)))


def _embed_file(path: Path) -> Embedded | None:
    try:
        with Image.open(path) as picture:
            return embed(picture)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
