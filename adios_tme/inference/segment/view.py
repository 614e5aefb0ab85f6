"""What the mask model looks at: an image or a slide on a grid of its own scale.

Shape legend: H x W pixels at the model's scale, 3 channels.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adios_tme.data.colour import Pixels
from adios_tme.data.slides.slide import Slide

#: Pixels of a level that are read at once where the view is coarser.
READ_PIXELS = 1 << 25
#: Of a view that is all tissue.
EVERYWHERE = np.ones((1, 1), bool)


class Box(NamedTuple):
    """A part of a view, in its pixels; right and bottom are beyond it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def within(self, size: tuple[int, int]) -> Box:
        """What of it lies inside a view."""
        width, height = size
        return Box(
            max(0, self.left), max(0, self.top), min(width, self.right), min(height, self.bottom)
        )


class View(Protocol):
    """An image of any size at the model's scale."""

    size: tuple[int, int]
    """Width and height in pixels."""
    microns_per_pixel: float | None
    pixel_um: tuple[float, float] | None
    """Width and height of a pixel in microns, which of a resized image differ by a little."""
    origin: tuple[float, float]
    """X and y of the upper left corner in the pixels that are written."""
    zoom: tuple[float, float]
    """Pixels that are written to one of the view, across and down."""
    tissue: NDArray[np.bool_]
    """Over the whole view at any scale, (H, W)."""

    def read(self, box: Box) -> Pixels:
        """The pixels of a part that lies inside (H, W, 3).

        Raises:
            CorruptPatchError: If they cannot be read.
        """

    @property
    def area_mm2(self) -> float | None:
        """Tissue; of images, all of them."""


def share_of_tissue(view: View, box: Box) -> float:
    """How much of a part (0 to 1) is tissue."""
    height, width = view.tissue.shape
    across, down = width / view.size[0], height / view.size[1]
    rows = slice(int(box.top * down), int(np.ceil(box.bottom * down)))
    columns = slice(int(box.left * across), int(np.ceil(box.right * across)))
    return float(view.tissue[rows, columns].mean())


def is_tissue(view: View, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether places in pixels of the view are tissue; a row of x and a column of y give a map."""
    height, width = view.tissue.shape
    rows = (y / view.size[1] * height).astype(int).clip(0, height - 1)
    columns = (x / view.size[0] * width).astype(int).clip(0, width - 1)
    found: NDArray[np.bool_] = view.tissue[rows, columns]
    return found


class ImageView:
    """An image in memory.

    Args:
        pixels: The image (H, W, 3).
        microns_per_pixel: Of the image, if that is known.
        scale: Microns per pixel at which it is looked at; None: as it is.
        origin: Where it lies in its slide.
        level0_zoom: Pixels of the slide to one of the image.
    """

    def __init__(
        self,
        pixels: Pixels,
        microns_per_pixel: float | None,
        scale: float | None,
        origin: tuple[int, int] = (0, 0),
        level0_zoom: float = 1.0,
    ) -> None:
        height, width = map(int, pixels.shape[:2])
        factor = 1.0 if scale is None or not microns_per_pixel else microns_per_pixel / scale
        self.size: tuple[int, int] = (
            max(1, round(width * factor)),
            max(1, round(height * factor)),
        )
        self.microns_per_pixel: float | None = None
        if microns_per_pixel is not None:
            self.microns_per_pixel = microns_per_pixel / factor
        self.pixel_um: tuple[float, float] | None = None
        if microns_per_pixel is not None:
            across, down = width / self.size[0], height / self.size[1]
            self.pixel_um = across * microns_per_pixel, down * microns_per_pixel
        self.origin = float(origin[0]), float(origin[1])
        self.zoom = width / self.size[0] * level0_zoom, height / self.size[1] * level0_zoom
        if self.size != (width, height):
            image = Image.fromarray(pixels).resize(self.size, Image.Resampling.BICUBIC)
            pixels = np.asarray(image)
        self._pixels = pixels
        self.tissue = EVERYWHERE

    def read(self, box: Box) -> Pixels:
        """See `View`."""
        return self._pixels[box.top : box.bottom, box.left : box.right]

    @property
    def area_mm2(self) -> float | None:
        """See `View`."""
        if self.microns_per_pixel is None:
            return None
        side = self.microns_per_pixel
        return self.size[0] * side * self.size[1] * side / 1e6


class SlideView:
    """A slide, read part by part.

    Two parts agree to the last bit where they overlap, since both begin on whole pixels of the
    level they are read from: the scale is the nearest to the wanted one at which ``step`` pixels
    are whole ones there, less than two hundredths off.

    Args:
        slide: Open.
        mpp: Microns per pixel of its level 0.
        scale: Microns per pixel wanted.
        step: Pixels of the view of which all places are multiples.
        tissue: Mask (H, W) over the whole slide at any scale; None: all of it.
    """

    def __init__(
        self,
        slide: Slide,
        mpp: float,
        scale: float,
        step: int,
        tissue: NDArray[np.bool_] | None,
    ) -> None:
        self._slide, self._step = slide, step
        level = slide.facts.levels[slide.level_for(scale / mpp)]
        self._on_level = max(1, round(step * scale / mpp / level.downsample))
        self._level0_step = max(1, round(self._on_level * level.downsample))
        zoom = self._level0_step / step
        width, height = slide.facts.size
        self.size = max(1, int(width / zoom)), max(1, int(height / zoom))
        self.microns_per_pixel: float | None = mpp * zoom
        self.pixel_um: tuple[float, float] | None = (mpp * zoom, mpp * zoom)
        self.origin, self.zoom = (0.0, 0.0), (zoom, zoom)
        self.tissue = EVERYWHERE if tissue is None else tissue
        self._level0_mm2 = width * height * mpp**2 / 1e6

    def read(self, box: Box) -> Pixels:
        """See `View`."""
        # In steps: what is read of a level across the box, and how many rows that leaves.
        across = (box.right - box.left) // self._step + 3
        steps = max(1, READ_PIXELS // (across * self._on_level**2) - 2)
        first, rows = box.top // self._step * self._step, steps * self._step
        parts = [
            self._read(box._replace(top=max(top, box.top), bottom=min(top + rows, box.bottom)))
            for top in range(first, box.bottom, rows)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self, box: Box) -> Pixels:
        # One step more all around: the filter that resizes has nothing to look at beyond an edge.
        first = [edge // self._step - 1 for edge in (box.left, box.top)]
        last = [-(-edge // self._step) + 1 for edge in (box.right, box.bottom)]
        across, down = (end - start for start, end in zip(first, last, strict=True))
        pixels = self._slide.read(
            (first[0] * self._level0_step, first[1] * self._level0_step),
            (across * self._level0_step, down * self._level0_step),
            (across * self._step, down * self._step),
        )
        left, top = (edge * self._step for edge in first)
        return pixels[box.top - top : box.bottom - top, box.left - left : box.right - left]

    @property
    def area_mm2(self) -> float | None:
        """See `View`."""
        return float(self.tissue.mean()) * self._level0_mm2
