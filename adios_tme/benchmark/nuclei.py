"""The nuclei benchmark of every checkpoint of a run, beside what needs no training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adios_tme import __version__
from adios_tme.benchmark.baselines import (
    everything_foreground,
    kmeans_in_hed,
    otsu_on_haematoxylin,
)
from adios_tme.benchmark.datasets import LabelFolder, LabelledImages
from adios_tme.benchmark.monuseg import MoNuSeg
from adios_tme.benchmark.pannuke import PanNuke
from adios_tme.benchmark.predict import MaskPredictor, Predict
from adios_tme.benchmark.protocol import CONFIDENCE, NUM_RESAMPLES, calibration_part
from adios_tme.benchmark.scores import ORACLE_THRESHOLD, THRESHOLDS
from adios_tme.benchmark.scoring import Cost, Scorer, scoring_pool
from adios_tme.checkpoint import find_checkpoint, list_checkpoints, load_mask_model, read_checkpoint
from adios_tme.config.benchmark import NucleiConfig
from adios_tme.config.data import cores_at_hand
from adios_tme.errors import CheckpointError, DataError

RESULTS_NAME = "nuclei_benchmark.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Results:
    """All that the benchmark reports; fields of the methods are those of `MethodScores`."""

    protocol: dict[str, Any]
    """What was compared with what: data set, split, thresholds, versions."""
    baselines: dict[str, dict[str, Any]]
    """Methods that need no training."""
    checkpoints: tuple[dict[str, Any], ...]
    """Scores of each checkpoint with its iteration, oldest first."""
    cost: Cost = field(default_factory=Cost, compare=False)

    @property
    def newest(self) -> dict[str, Any]:
        """Scores of the last checkpoint."""
        return self.checkpoints[-1]

    @property
    def best_baseline(self) -> tuple[str, float]:
        """The method without training that reached most, by fixed IoU."""
        means = {name: method["fixed"]["iou"]["mean"] for name, method in self.baselines.items()}
        return max(means.items(), key=lambda item: item[1])


def open_labels(config: NucleiConfig) -> LabelledImages:
    """The data set that the settings name.

    Raises:
        DataError: If its layout is another.
    """
    if config.pannuke is not None:
        return PanNuke(config.pannuke)
    if config.monuseg is not None:
        return MoNuSeg(config.monuseg)
    assert config.labels is not None
    return LabelFolder(config.labels)


def score_run(
    config: NucleiConfig,
    device: str | torch.device = "cpu",
    on_progress: Progress | None = None,
) -> Results:
    """Score every ``checkpoint_iter_*.pth``; those that are scored under this protocol stay.

    Args:
        config: Run, data set, protocol and output folder; written to after every checkpoint.
        device: Where the mask models run.
        on_progress: Called with the images done and their number over all that is to be scored.

    Raises:
        DataError: If labels are missing or of the wrong kind.
        CheckpointError: If there is no checkpoint, one is damaged, or its masks are not finite.
    """
    images = open_labels(config)
    calibration = calibration_part(images.parts, config.calibration, config.seed)
    checkpoints = _checkpoints(config.run)
    num_masks = int(read_checkpoint(checkpoints[0][1])["config"]["mask"]["num_masks"])
    protocol = _protocol(config, images, int(calibration.sum()), num_masks)
    path = config.output / RESULTS_NAME
    baselines, done = _read_finished(path, protocol)
    num_workers = config.num_workers or cores_at_hand()
    with scoring_pool(num_workers) as pool:
        scorer = Scorer(images, calibration, config.seed, pool, num_workers)
        todo = [item for item in checkpoints if str(item[1]) not in done]
        methods = {
            name: predict
            for name, predict in _baselines(scorer, num_masks)
            if name not in baselines
        }
        total = (len(todo) + len(methods)) * len(images)
        count = _Count(total, on_progress)
        for name, predict in methods.items():
            baselines[name] = asdict(scorer.score(predict, name, count))
        results = Results(protocol, baselines, _in_order(checkpoints, done), scorer.cost)
        for iteration, checkpoint in todo:
            scores = scorer.score(
                _predictor(config, checkpoint, images, device), str(checkpoint), count
            )
            done[str(checkpoint)] = {
                "iteration": iteration,
                "checkpoint": str(checkpoint),
                **asdict(scores),
            }
            results = Results(protocol, baselines, _in_order(checkpoints, done), scorer.cost)
            write_results(results, path)
    return results


class _Count:
    """Counts images for a progress bar."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._total = total
        self._on_progress = on_progress
        self._done = 0

    def __call__(self) -> None:
        self._done += 1
        if self._on_progress:
            self._on_progress(self._done, self._total)


def _protocol(
    config: NucleiConfig, images: LabelledImages, num_calibration: int, num_masks: int
) -> dict[str, Any]:
    """Every fact that a number depends on."""
    return {
        "data_set": images.kind,
        "path": str(images.path.resolve()),
        "num_images": len(images),
        "num_calibration": num_calibration,
        "calibration": config.calibration,
        "seed": config.seed,
        "num_masks": num_masks,
        "view": config.view,
        "scale": config.scale,
        "label_scale": _label_scale(config, images),
        "oracle_threshold": float(THRESHOLDS[ORACLE_THRESHOLD]),
        "thresholds": THRESHOLDS.tolist(),
        "confidence": CONFIDENCE,
        "num_resamples": NUM_RESAMPLES,
        "versions": {
            "adios_tme": __version__,
            "torch": metadata.version("torch"),
            "scikit-image": metadata.version("scikit-image"),
            "scipy": metadata.version("scipy"),
        },
    }


def _label_scale(config: NucleiConfig, images: LabelledImages) -> float | None:
    """Microns per pixel of the labelled images."""
    return config.label_scale or images.microns_per_pixel


def _predictor(
    config: NucleiConfig, checkpoint: Path, images: LabelledImages, device: str | torch.device
) -> Predict:
    zoom, windows = 1.0, {"auto": None, "whole": False, "windows": True}[config.view]
    if config.scale is not None:
        scale = _label_scale(config, images)
        if scale is None:
            raise DataError(
                f"{images.path}: the scale of its images is unknown. "
                f"Give --label-scale in microns per pixel, or drop --scale."
            )
        zoom, windows = scale / config.scale, True
    return MaskPredictor(load_mask_model(checkpoint, device), windows, zoom)


def _baselines(scorer: Scorer, num_masks: int) -> Iterator[tuple[str, Predict]]:
    chosen_on = (scorer.images[int(n)].pixels for n in np.flatnonzero(scorer.calibration))
    yield "otsu_haematoxylin", otsu_on_haematoxylin
    yield "kmeans_hed", kmeans_in_hed(chosen_on, num_masks, scorer.seed)
    yield "everything_foreground", everything_foreground


def write_results(results: Results, path: Path) -> None:
    """Write the JSON file, whole or not at all.

    Raises:
        DataError: If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(as_json(results), indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: the results cannot be written ({error.strerror}). Give another --output."
        ) from error


def as_json(results: Results) -> dict[str, Any]:
    """What the JSON file holds: all but the cost, which is another one each time."""
    content = asdict(results)
    del content["cost"]
    return content


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    if run.is_file():
        return [(int(read_checkpoint(run)["iteration"]), run)]
    kept = list_checkpoints(run)
    if not kept:
        find_checkpoint(run)  # says what is missing
        raise CheckpointError(
            f"{run}: holds no checkpoint_iter_*.pth. Give the output folder of a run."
        )
    return kept


def _read_finished(
    path: Path, protocol: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Baselines and checkpoints scored earlier under the same protocol; none if it is another."""
    if not path.is_file():
        return {}, {}
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["protocol"] != protocol:
            return {}, {}
        return saved["baselines"], {each["checkpoint"]: each for each in saved["checkpoints"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is not a result of this benchmark. Remove it, or give another --output."
        ) from error


def _in_order(
    checkpoints: list[tuple[int, Path]], done: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    return tuple(done[str(path)] for _, path in checkpoints if str(path) in done)
