"""Which slides are to be embedded, and by which rank."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.by_slide import (
    SlidePatches,
    coordinates_of,
    digest_of,
    facts_of,
    file_names,
    patches_by_slide,
)
from adios_tme.data.index import DatasetIndex
from adios_tme.data.names import NameFacts
from adios_tme.distributed.collectives import failing_together, from_all_ranks
from adios_tme.distributed.world import World
from adios_tme.inference.embed.features_file import read_attributes
from adios_tme.inference.embed.folder import Layout


@dataclass(frozen=True)
class PlannedSlide:
    """A slide, and the file of its features."""

    patches: SlidePatches
    file_name: str
    """Below the folder of features, without a suffix."""
    facts: NameFacts
    path: Path
    digest: str
    """Of the patches; see `adios_tme.data.by_slide.digest_of`."""
    state: Literal["new", "changed", "finished"]
    """changed: its file is of other patches, or damaged."""
    num_at_one_place: int = 0
    """Patches that have the x and y of another one; not looked for where it is finished."""


def plan_slides(
    index: DatasetIndex,
    layout: Layout,
    world: World,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[PlannedSlide]:
    """All slides of an index, whose names are read by all ranks together (a collective).

    Args:
        index: The patches.
        layout: Where files go.
        world: Place of this process.
        on_progress: Told the slides of this rank that are done, and their number.

    Raises:
        ConfigError: If names and flags differ.
        DataError: If a patch has no coordinates, or two slides would share a file.
    """
    with failing_together():
        slides = patches_by_slide(index)
        names = file_names(slides)
        own = []
        for slide in (mine := slides[world.rank :: world.num_ranks]):
            own.append(_plan(index, layout, slide, names[slide.name]))
            on_progress(len(own), len(mine))
    shares = from_all_ranks(own)
    return [shares[number % len(shares)][number // len(shares)] for number in range(len(slides))]


def _plan(index: DatasetIndex, layout: Layout, slide: SlidePatches, file_name: str) -> PlannedSlide:
    facts = layout.known(facts_of(index, slide))
    path, digest = layout.path(file_name, facts), digest_of(index, slide)
    state: Literal["new", "changed", "finished"] = "new"
    if path.exists():
        same = read_attributes(path).get("patches_digest") == digest
        state = "finished" if same else "changed"
    num_at_one_place = 0
    if state != "finished" and not layout.config.no_coords:
        # What raises does so now rather than in hours.
        num_at_one_place = _num_at_one_place(coordinates_of(index, slide.rows))
    return PlannedSlide(slide, file_name, facts, path, digest, state, num_at_one_place)


def _num_at_one_place(places: NDArray[np.int64]) -> int:
    _, counts = np.unique(places, axis=0, return_counts=True)
    return int(counts[counts > 1].sum())


def share_out(slides: Sequence[PlannedSlide], num_ranks: int) -> list[list[PlannedSlide]]:
    """Slides of each rank, so that all have about as many patches; each in the given order."""
    loads = [(0, rank) for rank in range(num_ranks)]
    rank_of = np.empty(len(slides), dtype=int)
    largest_first = sorted(range(len(slides)), key=lambda number: -len(slides[number].patches))
    for number in largest_first:
        load, rank = heapq.heappop(loads)
        rank_of[number] = rank
        heapq.heappush(loads, (load + len(slides[number].patches), rank))
    return [
        [slide for slide, its in zip(slides, rank_of, strict=True) if its == rank]
        for rank in range(num_ranks)
    ]
