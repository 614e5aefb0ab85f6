"""Which tiles of a slide are taken: its scale, its tissue, and what was noticed on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adios_tme.config.slides import SlideTiling
from adios_tme.data.colour import Pixels
from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import MAX_PIXELS
from adios_tme.data.left_out import LeftOut
from adios_tme.data.members import printable
from adios_tme.data.slides.coordinates import coordinate_file, read_coordinates
from adios_tme.data.slides.reader import OpenReader, OpenSlideReader
from adios_tme.data.slides.scale import Scale, read_mpp_csv, scale_of
from adios_tme.data.slides.slide import Slide
from adios_tme.data.slides.tiles import MAX_LEVELS, Places, Tile, aligned, grid, share_of_tissue
from adios_tme.data.slides.tissue import (
    OVERVIEW_MPP,
    regions_file,
    tissue_by_colour,
    tissue_by_regions,
)
from adios_tme.errors import DataError

#: Longest side of an overview in pixels.
MAX_OVERVIEW_SIDE = 8192
#: Tiles that are read to see whether a slide can be, and the share of them that may fail.
NUM_TRIED, MOST_UNREADABLE = 16, 0.25
#: How far the scale of a coordinate file may be from the one asked for.
SCALE_TOLERANCE = 0.01
#: Pixels of level 0 to one of a tile, under which it is told that tiles are enlarged.
MOST_ENLARGED = 0.95


@dataclass(frozen=True)
class SlidePlan:
    """What is taken of a slide."""

    path: Path
    scale: Scale
    size: tuple[int, int]
    """Width and height in pixels of level 0."""
    overview: Pixels
    """The whole slide, small (H, W, 3)."""
    tissue: NDArray[np.bool_] | None
    """Tissue on the overview (H, W); None where nobody asks for it."""
    places: Places
    """X and y of the tiles (N, 2) in pixels of level 0."""
    side: int
    """Of a tile in pixels of level 0."""
    level: int
    """At which tiles are read."""
    notices: LeftOut = field(default_factory=LeftOut)
    """What its user should know."""


def plan_slide(
    path: Path, tiling: SlideTiling, size_px: int, open_reader: OpenReader = OpenSlideReader
) -> SlidePlan:
    """Find the tiles of a slide.

    Args:
        path: Its file.
        tiling: How it is cut; with a scale.
        size_px: Side of the tiles in pixels at that scale.
        open_reader: How it is opened.

    Raises:
        ConfigError: If a package or file that the settings ask for is missing.
        DataError: If the slide, its scale, regions or coordinates cannot be used.
    """
    try:
        return _plan(Slide(path, open_reader), tiling, size_px)
    except CorruptPatchError as error:
        raise DataError(
            f"{printable(path.name)}: {error}. Copy or export the slide again, or remove it."
        ) from error


def _plan(slide: Slide, tiling: SlideTiling, size_px: int) -> SlidePlan:
    assert tiling.mpp is not None
    scale = scale_of(slide.path.name, slide.facts.properties, read_mpp_csv(tiling.mpp_csv))
    side = max(1, round(size_px * tiling.mpp / scale.mpp))
    overview = _overview(slide, scale.mpp)
    level = min(slide.level_for(side / size_px), MAX_LEVELS - 1)
    tissue = None
    if tiling.coordinates is not None:
        places, side = _given(slide, tiling.coordinates, side, size_px, scale)
    else:
        tissue = _tissue(slide, tiling.tissue, overview)
        step = (size_px - tiling.overlap) * tiling.mpp / scale.mpp
        every = aligned(grid(slide.facts.size, side, step), slide.facts.levels[level].downsample)
        places = _on_tissue(slide, every, side, tissue, tiling)
    _check_cost(slide, level, side)
    plan = SlidePlan(slide.path, scale, slide.facts.size, overview, tissue, places, side, level)
    _try_tiles(slide, plan, size_px)
    _notice(slide, plan, tiling)
    if side < MOST_ENLARGED * size_px:
        plan.notices.add("too_coarse", [printable(slide.path.name)])
    return plan


def tissue_of(slide: Slide, rule: str, mpp: float) -> NDArray[np.bool_] | None:
    """Tissue (H, W) of a whole slide at a coarse scale; None where the rule takes all of it.

    Args:
        slide: Open.
        rule: See `SlideTiling.tissue`.
        mpp: Microns per pixel of level 0.

    Raises:
        CorruptPatchError: If it cannot be read.
        DataError: If its regions cannot be used.
    """
    return None if rule == "none" else _tissue(slide, rule, _overview(slide, mpp))


def _overview(slide: Slide, mpp: float) -> Pixels:
    return slide.overview(max(OVERVIEW_MPP / mpp, max(slide.facts.size) / MAX_OVERVIEW_SIDE))


def _tissue(slide: Slide, rule: str, overview: Pixels) -> NDArray[np.bool_] | None:
    if rule == "none":
        return None
    if rule in ("otsu", "hsv"):
        return tissue_by_colour(overview, rule)
    height, width, _ = overview.shape
    return tissue_by_regions(regions_file(rule, slide.path), slide.facts.size, (width, height))


def _on_tissue(
    slide: Slide,
    places: Places,
    side: int,
    tissue: NDArray[np.bool_] | None,
    tiling: SlideTiling,
) -> Places:
    if tissue is None or not len(places):
        return places
    width, height = slide.facts.size
    downsample = width / tissue.shape[1], height / tissue.shape[0]
    share = share_of_tissue(places, side, tissue, downsample)
    return places[(share >= tiling.min_tissue) & (share > 0)]


def _given(slide: Slide, folder: Path, side: int, size_px: int, scale: Scale) -> tuple[Places, int]:
    """Tiles of a coordinate file, if they are of this slide and of the scale asked for."""
    path = coordinate_file(folder, slide.path)
    found = read_coordinates(path, slide.facts.levels)
    if abs(found.side - side) > max(1, SCALE_TOLERANCE * side):
        raise DataError(
            f"{path.name}: its tiles are {found.side} px wide in level 0, and {size_px} px at the "
            f"scale asked for are {side}. "
            f"Give --mpp {found.side * scale.mpp / size_px:.4g}, or another --patch-size-px."
        )
    width, height = slide.facts.size
    outside = (found.places < 0) | (found.places > [width - found.side, height - found.side])
    if outside.any():
        x, y = found.places[outside.any(axis=1)][0].tolist()
        raise DataError(
            f"{path.name}: {outside.any(axis=1).sum()} tiles lie outside the slide of {width} x "
            f"{height} px (first: x {x}, y {y}). Give the coordinates of this slide."
        )
    return found.places, found.side


def _check_cost(slide: Slide, level: int, side: int) -> None:
    """Raise where a tile is made from more pixels than are ever decoded."""
    wide = round(side / slide.facts.levels[level].downsample)
    if wide * wide > MAX_PIXELS:
        raise DataError(
            f"{slide.path.name}: has no level near the scale asked for; a tile would be made from "
            f"{wide} x {wide} px. Lower --mpp, or write the slide again with coarser levels."
        )


def _try_tiles(slide: Slide, plan: SlidePlan, size_px: int) -> None:
    """Read a few tiles, and note what fails.

    Raises:
        CorruptPatchError: If many of them cannot be read, as of a truncated slide.
    """
    if not len(plan.places):
        return
    rows = np.unique(np.linspace(0, len(plan.places) - 1, NUM_TRIED, dtype=int))
    errors = []
    for x, y in plan.places[rows].tolist():
        try:
            slide.tile(Tile(x, y, plan.side, size_px, plan.level))
        except CorruptPatchError as error:
            errors.append(error)
    if len(errors) > MOST_UNREADABLE * len(rows):
        raise CorruptPatchError(
            f"{len(errors)} of {len(rows)} tiles that were tried cannot be read ({errors[0]})"
        )
    plan.notices.add("unread_tile", [printable(slide.path.name)], len(errors))


def _notice(slide: Slide, plan: SlidePlan, tiling: SlideTiling) -> None:
    name = [printable(slide.path.name)]
    if not len(plan.places):
        plan.notices.add("no_tile", name)
    if plan.scale.is_uneven:
        plan.notices.add("uneven_scale", name)
    if slide.facts.profile is not None and not tiling.icc:
        plan.notices.add("colour_profile", name)
    plan.notices.add("unread_level", name, len(slide.levels_failed))
