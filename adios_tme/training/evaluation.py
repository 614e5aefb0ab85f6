"""The mask model as it stands: pictures on the same few images, and scores on labelled ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.run_folder.layout import MASK_PICTURES, mask_picture_name
from adios_tme.training.state import Run

Evaluate = Callable[[MaskGenerator], dict[str, float]]
"""Scores a mask model on labelled images."""

logger = logging.getLogger(__name__)


@contextmanager
def evaluating(run: Run) -> Iterator[MaskGenerator]:
    """The mask model that is shown, in evaluation; back in training afterwards."""
    data, network = run.config.data, run.shown_mask_model
    generator = MaskGenerator(network, data.img_size, data.mean, data.std)
    was_training = network.training
    try:
        yield generator.to(run.resolved.device).eval()
    finally:
        network.train(was_training)


def evaluate_masks(run: Run, evaluate: Evaluate | None) -> dict[str, float]:
    """Scores of the masks as they stand; none without labels."""
    if evaluate is None:
        return {}
    with evaluating(run) as generator:
        return evaluate(generator)


def draw_masks(run: Run, images: Tensor) -> Path | None:
    """Draw the masks of some images as they stand.

    Args:
        run: The run.
        images: uint8 (B, 3, S, S).

    Returns:
        The picture; None without images, or where the disk did not take it (a warning says so).
    """
    if not len(images):
        return None
    from adios_tme.viz.masks import plot_masks  # with matplotlib, of which one rank has need

    with evaluating(run) as generator:
        masks = generator(images.to(run.resolved.device)).cpu()
    path = run.config.run.output_dir / MASK_PICTURES / mask_picture_name(run.iteration)
    try:
        plot_masks(images, masks, path, title=f"Masks after {run.iteration} updates")
    except OSError as error:
        logger.warning("%s: cannot be written (%s); training goes on.", path, error.strerror)
        return None
    return path
