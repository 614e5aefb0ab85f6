"""Which mask is that of nuclei, and from which value on, without a label.

Shape legend: N masks, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.stain import haematoxylin, image_correlation
from adios_tme.errors import ConfigError, DataError
from adios_tme.inference.clean import counts_at, levels_of, otsu_level
from adios_tme.inference.segment.blocks import Block, Grid, blocks_of, cores_of
from adios_tme.inference.segment.nuclei import Chosen, cleaning_of
from adios_tme.inference.segment.view import Box, View, share_of_tissue
from adios_tme.inference.sliding_window import Predict

Views = Callable[[], Iterator[View]]

#: Least correlation with the haematoxylin of a mask that is taken for that of nuclei.
LEAST_CORRELATION = 0.2
#: Blocks of a slide or large image that are looked at, and their side in pixels.
BLOCKS_PER_VIEW, BLOCK_PX = 4, 512
#: Share of the blocks among which they are, those with the most tissue.
BEST_SHARE = 0.5


def choose(
    views: Iterable[Views], grid: Grid, predict: Predict, channel: int | None
) -> tuple[Chosen, float | None]:
    """Channel by its correlation with the haematoxylin, threshold by Otsu.

    Args:
        views: Of some of the inputs; the first view of each counts.
        grid: Of windows.
        predict: The model.
        channel: From 0 on, if the user has said it.

    Returns:
        The choice, and the mean correlation of its channel where it was looked for.

    Raises:
        ConfigError: If no channel goes with the haematoxylin, or there is no such channel.
        CorruptPatchError: If no image can be read.
        DataError: If no slide can be used.
    """
    correlations: list[NDArray[np.float64]] = []
    counts: list[NDArray[np.int64]] = []
    for block, view in _some_blocks(views, grid, predict):
        check_channel(channel, len(block.masks))
        correlations.append(image_correlation(block.masks, haematoxylin(block.pixels)))
        smooth = cleaning_of(view).smooth
        counts.append(np.stack([counts_at(levels_of(smooth(mask))) for mask in block.masks]))
    mean_N = np.mean(correlations, axis=0)
    found = int(mean_N.argmax()) if channel is None else channel
    if channel is None and mean_N[found] < LEAST_CORRELATION:
        said = ", ".join(f"{value:.2f}" for value in mean_N)
        raise ConfigError(
            f"channel: no mask goes with the haematoxylin (correlations {said}; at least "
            f"{LEAST_CORRELATION} is expected). Look at the masks with adios-tme viz masks, and "
            f"give --channel."
        )
    threshold = otsu_level(np.sum(counts, axis=0)[found])
    return Chosen(found, threshold), None if channel is not None else float(mean_N[found])


def check_channel(channel: int | None, num_masks: int) -> None:
    """Raise unless the model has a channel (from 0 on).

    Raises:
        ConfigError: If it has not.
    """
    if channel is not None and channel >= num_masks:
        raise ConfigError(
            f"channel={channel + 1} is beyond the {num_masks} masks of the model. "
            f"Give 1 to {num_masks}."
        )


def _some_blocks(
    views: Iterable[Views], grid: Grid, predict: Predict
) -> Iterator[tuple[Block, View]]:
    """Blocks of the first view of each; what cannot be read is told when its turn comes."""
    grid = grid.with_core(BLOCK_PX)
    errors: list[CorruptPatchError | DataError] = []
    num_blocks = 0
    for each in views:
        try:
            view = next(each())
            for block in blocks_of(view, _some_cores(view, grid), grid, predict):
                num_blocks += 1
                yield block, view
        except (CorruptPatchError, DataError) as error:
            errors.append(error)
    if not num_blocks:
        raise (
            errors[0]
            if errors
            else DataError(
                "tissue: none was found in the slides. Look at adios-tme index --previews, or give "
                "--tissue none."
            )
        )


def _some_cores(view: View, grid: Grid) -> list[Box]:
    """Some with much tissue, spread over the view."""
    cores = cores_of(view, grid)
    shares = np.array([share_of_tissue(view, core) * core.area for core in cores])
    best = np.sort(np.argsort(-shares, kind="stable")[: max(1, round(BEST_SHARE * len(cores)))])
    places = np.unique(np.linspace(0, len(best) - 1, BLOCKS_PER_VIEW).astype(int))
    return [cores[number] for number in best[places]] if cores else []
