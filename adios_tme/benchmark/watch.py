"""Scores of masks on a few labelled images while a run goes on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adios_tme.benchmark.datasets import LabelFolder
from adios_tme.benchmark.protocol import score_channels
from adios_tme.benchmark.scores import iou_at_thresholds
from adios_tme.config.train import TrainConfig

Masks = Callable[[Tensor], Tensor]


def evaluator(config: TrainConfig) -> Callable[[Masks], dict[str, float]] | None:
    """A function that scores masks on the images that ``eval_labels`` asks for.

    Channel and threshold are chosen on every other image and scored on the rest.

    Raises:
        DataError: If labels are missing or of the wrong kind.
    """
    watch = config.watch
    if watch.eval_labels is None:
        return None
    folder = list(LabelFolder(watch.eval_labels))
    places = np.linspace(0, len(folder) - 1, min(watch.eval_images, len(folder))).round()
    images = [folder[int(place)] for place in places]
    calibration = np.arange(len(images)) % 2 == 0

    def evaluate(masks: Masks) -> dict[str, float]:
        ious = []
        for image in images:
            pixels = torch.from_numpy(image.pixels).permute(2, 0, 1).unsqueeze(0)
            masks_NHW = masks(pixels)[0].cpu().numpy()
            ious.append(iou_at_thresholds(masks_NHW, image.labels > 0))
        scores = score_channels(np.stack(ious), calibration)
        return {
            "eval_fixed_iou": scores.fixed_iou_mean,
            "eval_oracle_iou": scores.oracle_iou_mean,
            "eval_random_iou": scores.random_channel_iou_mean,
            "eval_channel": scores.fixed_channel,
        }

    return evaluate
