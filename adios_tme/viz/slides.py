"""What is taken of whole slides: each one small, with the outline of its tissue and its tiles.

Shape legend: H x W pixels, 3 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from adios_tme.config.slides import SlideTiling
from adios_tme.data.index import DatasetIndex
from adios_tme.data.members import Kind
from adios_tme.data.patch import unique_names
from adios_tme.data.slides.plan import plan_slide
from adios_tme.distributed.pool import process_pool
from adios_tme.files import PNG_METADATA, replacing
from adios_tme.viz.contact_sheet import draw_contact_sheet

Progress = Callable[[int, int], None]

#: Longest side of a preview in pixels.
PREVIEW_PX = 1024
TISSUE_COLOUR, TILE_COLOUR = (0, 150, 60), (20, 60, 200)
#: How strongly what lies in no tile is faded towards white.
FADE = 0.55
#: Slides on the contact sheet at most, spread over all, and the longest side of each.
ON_SHEET, SHEET_TILE_PX = 144, 320


def preview(
    overview: NDArray[np.uint8],
    tissue: NDArray[np.bool_] | None,
    places: NDArray[np.int64],
    side: int,
    slide_size: tuple[int, int],
) -> NDArray[np.uint8]:
    """A slide with its tissue and its tiles; what lies in no tile is faded.

    Args:
        overview: The slide (H, W, 3).
        tissue: Where its tissue is (H, W), if anybody has looked for it.
        places: X and y of the tiles (N, 2) in pixels of level 0.
        side: Of a tile in pixels of level 0.
        slide_size: Width and height in pixels of level 0.

    Returns:
        RGB, its longer side `PREVIEW_PX`.
    """
    scale = PREVIEW_PX / max(slide_size)
    size = max(1, round(slide_size[0] * scale)), max(1, round(slide_size[1] * scale))
    image = Image.fromarray(overview).resize(size, Image.Resampling.BICUBIC)
    faded = Image.blend(image, Image.new("RGB", size, "white"), FADE)
    corners = np.concatenate([places, places + side], axis=1) * scale
    boxes = corners.round().astype(int).tolist()
    for box in boxes:
        faded.paste(image.crop(box), box)
    draw = ImageDraw.Draw(faded)
    for left, top, right, bottom in boxes:
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), None, TILE_COLOUR)
    pixels = np.array(faded)
    if tissue is not None:
        pixels[_outline(tissue, size)] = TISSUE_COLOUR
    return pixels


def write_preview(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write a preview as PNG that is known as ours.

    Raises:
        OSError: If it cannot be written.
    """
    info = PngInfo()
    for key, value in PNG_METADATA.items():
        info.add_text(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG", pnginfo=info)


def _outline(tissue: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of the tissue whose neighbour is none, two pixels wide."""
    grown = np.asarray(Image.fromarray(tissue).resize(size, Image.Resampling.NEAREST))
    padded = np.pad(grown, 2)
    inner = grown.copy()
    height, width = grown.shape
    for down, across in ((0, 2), (4, 2), (2, 0), (2, 4)):
        inner &= padded[down : down + height, across : across + width]
    outline: NDArray[np.bool_] = grown & ~inner
    return outline


def draw_previews(
    index: DatasetIndex, folder: Path, num_workers: int, on_progress: Progress | None = None
) -> int:
    """Draw every slide of an index to a folder, and a contact sheet of them.

    Args:
        index: The index; what is no slide in it is passed over.
        folder: Gets a PNG a slide, and ``contact_sheet.png``.
        num_workers: Processes.
        on_progress: Called with the slides done and their number.

    Returns:
        The number of slides drawn.

    Raises:
        DataError: If a slide cannot be read any more.
        LaunchError: If one of the processes is killed.
        OSError: If a picture cannot be written.
    """
    archives = [index.archive(number) for number in range(index.num_archives)]
    slides = [archive for archive in archives if archive.kind == Kind.SLIDE]
    paths = [folder / f"{name}.png" for name in unique_names(slides)]
    on_sheet = set(np.linspace(0, len(slides) - 1, min(len(slides), ON_SHEET), dtype=int).tolist())
    small = []
    draw = partial(_draw, tiling=index.tiling, size_px=index.selection.patch_size_px)
    with process_pool(num_workers, "Drawing slides") as pool:
        drawn = pool.map(draw, [slide.path for slide in slides], paths)
        for number, thumbnail in enumerate(drawn):
            if number in on_sheet:
                small.append(thumbnail)
            if on_progress:
                on_progress(number + 1, len(slides))
    draw_contact_sheet(small, folder / "contact_sheet.png", tile_px=SHEET_TILE_PX)
    return len(slides)


def _draw(path: Path, to: Path, tiling: SlideTiling, size_px: int) -> NDArray[np.uint8]:
    plan = plan_slide(path, tiling, size_px)
    pixels = preview(plan.overview, plan.tissue, plan.places, plan.side, plan.size)
    write_preview(pixels, to)
    image = Image.fromarray(pixels)
    image.thumbnail((SHEET_TILE_PX, SHEET_TILE_PX), Image.Resampling.BICUBIC)
    return np.asarray(image)
