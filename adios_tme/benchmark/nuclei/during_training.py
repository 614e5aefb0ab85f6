"""Scores of masks on a few labelled images while a run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from adios_tme.benchmark.nuclei.aggregate import choose, choose_without_labels
from adios_tme.benchmark.nuclei.label_folder import LabelFolder
from adios_tme.benchmark.nuclei.pixel_scores import (
    ORACLE_THRESHOLD,
    THRESHOLDS,
    score_mask,
    score_pixels,
    see,
)
from adios_tme.config.evaluation import EvaluationConfig
from adios_tme.errors import DataError
from adios_tme.inference.sliding_window import MaskPredictor
from adios_tme.models.mask_models.generator import MaskGenerator

logger = logging.getLogger(__name__)


def evaluator(watch: EvaluationConfig) -> Callable[[MaskGenerator], dict[str, float]] | None:
    """A function that scores a mask model on the images that ``eval_labels`` asks for.

    Channel and threshold are chosen on every other image, with labels and without, and scored on
    the rest.

    Raises:
        DataError: If labels are missing or of the wrong kind.
    """
    if watch.eval_labels is None:
        return None
    folder = LabelFolder(watch.eval_labels)
    if len(folder) < 2:
        raise DataError(
            f"{folder.path}: one labelled image cannot serve to choose channel and threshold and "
            f"to score them. Give two or more, or drop --eval-labels."
        )
    places = np.linspace(0, len(folder) - 1, min(watch.eval_images, len(folder))).round()
    images = [folder[int(place)] for place in places]
    for line in folder.accounts.total().lines():
        logger.warning("%s: %s", folder.path, line)
    calibration = np.arange(len(images)) % 2 == 0

    def evaluate(generator: MaskGenerator) -> dict[str, float]:
        predict = MaskPredictor(generator)
        masks = [predict(image.pixels) for image in images]
        iou_INT = np.stack(
            [
                score_pixels(masks_NHW, image.labels).iou
                for image, masks_NHW in zip(images, masks, strict=True)
            ]
        )
        chosen = choose(iou_INT[calibration])
        fixed_I = iou_INT[~calibration, chosen.channel, chosen.threshold]
        blind = choose_without_labels(
            [see(masks[number], images[number].pixels) for number in np.flatnonzero(calibration)]
        )
        no_labels_I = [
            score_mask(masks[number][blind.channel] >= blind.threshold, images[number].labels)[0]
            for number in np.flatnonzero(~calibration)
        ]
        return {
            "eval_fixed_iou": float(fixed_I.mean()),
            "eval_oracle_iou": float(iou_INT[:, :, ORACLE_THRESHOLD].max(axis=1).mean()),
            "eval_no_labels_iou": float(np.mean(no_labels_I)),
            "eval_no_labels_channel": blind.channel + 1,
            "eval_no_labels_threshold": blind.threshold,
            "eval_channel": chosen.channel + 1,
            "eval_threshold": float(THRESHOLDS[chosen.threshold]),
        }

    return evaluate
