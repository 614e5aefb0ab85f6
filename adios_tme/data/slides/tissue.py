"""Where a slide has tissue: by colour at a coarse scale, or by regions that somebody has drawn.

Shape legend: H x W pixels of the overview, 3 channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from adios_tme.config.slides import TISSUE_RULES
from adios_tme.data.colour import Pixels
from adios_tme.errors import ConfigError, DataError

Mask = NDArray[np.bool_]
Ring = NDArray[np.float64]

#: Microns per pixel at which tissue is looked for; tiles of training are a dozen such pixels wide.
OVERVIEW_MPP = 8.0
#: Bounds of Otsu's threshold on saturation (0 to 1), which would else split a slide that is all
#: glass, or all tissue, into two halves of the same.
LEAST_SATURATION, MOST_SATURATION = 0.05, 0.15
#: Hues in degrees that haematoxylin and eosin give, for the rule `hsv`.
STAINED_HUES = (225.0, 20.0)
#: Hues in degrees of green, cyan and light blue ink, which no stain of H&E has.
INK_HUES = (60.0, 215.0)
#: Value (0 to 1) under which a pixel is ink, a fold of black or beyond the scan.
DARKEST = 0.15
#: Sides in overview pixels of the median filter and of the closing.
MEDIAN_SIDE, CLOSING_SIDE = 5, 5
#: How far a region may reach beyond its slide: QuPath draws over the edge.
_BEYOND = 0.01


def check_tissue(tissue: str) -> None:
    """Raise unless a rule for tissue is known, or is a file or folder of regions.

    Raises:
        ConfigError: Saying what it may be.
    """
    if tissue not in TISSUE_RULES and not Path(tissue).exists():
        raise ConfigError(
            f"tissue: {tissue} is no rule, and no such file or folder exists. "
            f"Give {', '.join(TISSUE_RULES)}, a GeoJSON file, or a folder of them."
        )


def tissue_by_colour(overview: Pixels, rule: str) -> Mask:
    """Tissue (H, W) of an overview at `OVERVIEW_MPP`.

    Args:
        overview: RGB (H, W, 3).
        rule: ``otsu`` or ``hsv``.
    """
    from scipy.ndimage import binary_closing, median_filter

    hue, saturation, value = _hsv(overview)
    smooth = median_filter(saturation, MEDIAN_SIDE)
    plain = (value > DARKEST) & ~_within(hue, INK_HUES)
    if rule == "hsv":
        plain &= _within(hue, STAINED_HUES)
        threshold = LEAST_SATURATION
    else:
        threshold = _otsu(smooth)
    # Ink is taken out before closing and after it, which would else bridge it.
    inked = median_filter((~plain & (saturation > LEAST_SATURATION)).astype(np.uint8), 3) > 0
    found = (smooth > threshold) & plain
    closed = binary_closing(np.pad(found, CLOSING_SIDE), np.ones((CLOSING_SIDE, CLOSING_SIDE)))
    inner = slice(CLOSING_SIDE, -CLOSING_SIDE)
    mask: Mask = closed[inner, inner] & ~inked
    return mask


def _otsu(saturation: NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    if saturation.min() == saturation.max():
        return LEAST_SATURATION
    return float(np.clip(threshold_otsu(saturation), LEAST_SATURATION, MOST_SATURATION))


def _hsv(pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Hue in degrees, saturation and value from 0 to 1; each (H, W)."""
    hue, saturation, value = np.moveaxis(
        np.asarray(Image.fromarray(pixels).convert("HSV"), dtype=np.float32), -1, 0
    )
    return hue * (360 / 256), saturation / 255, value / 255


def _within(hue: NDArray[np.float32], limits: tuple[float, float]) -> Mask:
    """Whether hues lie between two on the circle, the first one below."""
    low, high = limits
    return (hue >= low) & (hue <= high) if low <= high else (hue >= low) | (hue <= high)


def regions_file(tissue: str, slide: Path) -> Path:
    """The GeoJSON of a slide: the file itself, or its own one in a folder.

    Raises:
        DataError: If the folder has none for it.
    """
    path = Path(tissue)
    if not path.is_dir():
        return path
    for name in (f"{slide.stem}.geojson", f"{slide.name}.geojson", f"{slide.stem}.json"):
        if (path / name).is_file():
            return path / name
    raise DataError(
        f"{slide.name}: has no regions in {path}. Export them from QuPath as {slide.stem}.geojson."
    )


def tissue_by_regions(
    path: Path, slide_size: tuple[int, int], overview_size: tuple[int, int]
) -> Mask:
    """Tissue (H, W) by the polygons of a GeoJSON file, whose units are pixels of level 0.

    Args:
        path: The file, as QuPath exports it.
        slide_size: Width and height in pixels of level 0.
        overview_size: Width and height of the mask.

    Raises:
        DataError: If it is no GeoJSON, holds no polygon, or is of another slide.
    """
    polygons = list(_polygons(path))
    if not polygons:
        raise DataError(f"{path.name}: holds no polygon. Draw regions, and export them again.")
    corners = np.concatenate([rings[0] for rings in polygons])
    width, height = slide_size
    beyond = _BEYOND * max(slide_size)
    if (corners.min(axis=0) < -beyond).any() or (
        corners.max(axis=0) > [width + beyond, height + beyond]
    ).any():
        far = corners[np.abs(corners - [width / 2, height / 2]).max(axis=1).argmax()]
        raise DataError(
            f"{path.name}: a region reaches to x {far[0]:.0f}, y {far[1]:.0f}, outside the slide "
            f"of {width} x {height} px, so that it is of another one. "
            f"Give the regions of this slide."
        )
    scale = np.array(overview_size) / slide_size
    mask = np.zeros(overview_size[::-1], bool)
    for outline, *holes in polygons:
        mask |= _filled(outline * scale, overview_size) & ~_any_filled(holes, scale, overview_size)
    return mask


def _any_filled(rings: list[Ring], scale: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    holes = np.zeros(size[::-1], bool)
    for ring in rings:
        holes |= _filled(ring * scale, size)
    return holes


def _filled(ring: Ring, size: tuple[int, int]) -> Mask:
    """Pixels whose centres lie in a polygon."""
    image = Image.new("1", size)
    ImageDraw.Draw(image).polygon([tuple(point) for point in (ring - 0.5).tolist()], fill=1)
    return np.asarray(image)


def _polygons(path: Path) -> Iterator[list[Ring]]:
    """Outline and holes of each polygon."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for geometry in _geometries(content):
            parts = geometry["coordinates"]
            for rings in [parts] if geometry["type"] == "Polygon" else parts:
                yield [_ring(ring) for ring in rings]
    except OSError as error:
        raise DataError(
            f"{path}: the regions cannot be read ({error.strerror}). Give another file."
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path.name}: is not GeoJSON as QuPath exports it. Export the annotations again."
        ) from error


def _geometries(content: Any) -> Iterator[dict[str, Any]]:
    """Polygons of a collection, a list or a single feature; points and lines have no area."""
    if isinstance(content, list):
        for feature in content:
            yield from _geometries(feature)
    elif content.get("type") == "FeatureCollection":
        yield from _geometries(content["features"])
    elif content.get("type") == "Feature":
        yield from _geometries(content["geometry"])
    elif content.get("type") == "GeometryCollection":
        yield from _geometries(content["geometries"])
    elif content["type"] in ("Polygon", "MultiPolygon"):
        yield content


def _ring(points: Any) -> Ring:
    ring = np.asarray(points, dtype=np.float64)[:, :2]
    if len(ring) < 3 or ring.shape[1] != 2 or not np.isfinite(ring).all():
        raise ValueError("no polygon")
    return ring
