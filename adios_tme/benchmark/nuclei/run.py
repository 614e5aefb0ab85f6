"""The nuclei benchmark of every checkpoint of a run, beside what needs no training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adios_tme.benchmark.checkpoints import KeptCheckpoint, kept_checkpoints
from adios_tme.benchmark.nuclei.aggregate import CONFIDENCE, NUM_RESAMPLES, calibration_part
from adios_tme.benchmark.nuclei.baselines import (
    OtsuOnMacenko,
    everything_foreground,
    kmeans_in_hed,
    otsu_on_haematoxylin,
)
from adios_tme.benchmark.nuclei.label_folder import LabelFolder, LabelledImages
from adios_tme.benchmark.nuclei.monuseg import MoNuSeg
from adios_tme.benchmark.nuclei.pannuke import PanNuke
from adios_tme.benchmark.nuclei.pixel_scores import ORACLE_THRESHOLD, THRESHOLDS
from adios_tme.benchmark.nuclei.results import (
    RESULTS_NAME,
    SEGMENTATIONS,
    CheckpointScores,
    Differences,
    MethodScores,
    Results,
    read_finished,
)
from adios_tme.benchmark.nuclei.scorer import Scorer, scoring_pool
from adios_tme.benchmark.nuclei.verdict import course_of, differences
from adios_tme.benchmark.results_file import ResultsFile
from adios_tme.config.commands.benchmark import NucleiConfig
from adios_tme.errors import ConfigError
from adios_tme.inference.clean import LEAST_MEAN, MASK_WEIGHT, USUAL_SCALE, Cleaning
from adios_tme.inference.sliding_window import MaskPredictor, Predict
from adios_tme.pretrained import TrainedMaskModel, load_for_scoring
from adios_tme.terminal import Count
from adios_tme.version import __version__

Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


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

    What was scored earlier counts as long as the weights, the labelled images, the settings and the
    versions are the same.

    Args:
        config: Run, data set, protocol and output folder; written to after every checkpoint.
        device: Where the mask models run.
        on_progress: Called with the images done and their number over all that is to be scored.

    Raises:
        DataError: If labels are missing or of the wrong kind, or the output folder holds the scores
            of another run or data set.
        CheckpointError: If there is no checkpoint, one is damaged, or its masks are not finite.
    """
    images = open_labels(config)
    calibration = calibration_part(images.parts, config.calibration, config.seed)
    checkpoints, opened = _checkpoints(config.run, device)
    num_masks = opened[checkpoints[0]].num_masks
    cleaning = _cleaning(config, images)
    protocol = _protocol(config, images, int(calibration.sum()), num_masks, cleaning)
    zoom, windows = _look(config, images)
    output = ResultsFile.checked(config.output / RESULTS_NAME)
    before = read_finished(config.output / RESULTS_NAME, protocol)
    baselines, done = before.baselines, before.checkpoints
    beside: dict[tuple[int, str], Differences] = {}
    with scoring_pool(config.num_workers) as pool:
        scorer = Scorer(images, calibration, config.seed, pool, config.num_workers)

        def found() -> Results:
            seen_now = scorer.cost.num_images > 0
            left_out = images.accounts.total() if seen_now else before.left_out
            return Results(
                protocol,
                baselines,
                scored := _in_order(checkpoints, done, beside),
                left_out.as_json(),
                scorer.cost,
                course_of(scored, config.seed),
            )

        todo = [item for item in checkpoints if item.key not in done]
        methods = {
            name: predict
            for name, predict in _baselines(scorer, num_masks, cleaning)
            if name not in baselines
        }
        total = (len(todo) + len(methods)) * len(images)
        count = Count(on_progress, total)
        for name, predict in methods.items():
            baselines[name] = scorer.score(predict, name, count)
            _tell_without_stains(name, predict)
        for key, scores in done.items():
            beside[key] = differences(scores, baselines, config.seed)
        results = found()
        for checkpoint in todo:
            model = opened.pop(checkpoint, None) or load_for_scoring(checkpoint.path, device)
            predict = MaskPredictor(model.generator, windows, zoom)
            scores = scorer.score(predict, str(checkpoint.path), count, cleaning)
            done[checkpoint.key] = scores
            beside[checkpoint.key] = differences(scores, baselines, config.seed)
            results = found()
            output.write(results.as_json())
    return results


def _protocol(
    config: NucleiConfig,
    images: LabelledImages,
    num_calibration: int,
    num_masks: int,
    cleaning: Cleaning,
) -> dict[str, Any]:
    """Every fact that a number depends on."""
    run = config.run.resolve()
    return {
        "run": str(run.parent if run.is_file() else run),
        "data_set": images.kind,
        "path": str(images.path.resolve()),
        "files": _fingerprint(images.path, without=config.output),
        "num_images": len(images),
        "num_calibration": num_calibration,
        "calibration": config.calibration,
        "seed": config.seed,
        "num_masks": num_masks,
        "view": "windows" if config.scale is not None else config.view,
        "scale": config.scale,
        "label_scale": _label_scale(config, images),
        "cleaning": {
            "scale_is_assumed": _label_scale(config, images) is None,
            **asdict(cleaning),
        },
        "segmentations": list(SEGMENTATIONS),
        "with_stain": {"mask_weight": MASK_WEIGHT, "least_mean": LEAST_MEAN},
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


def _fingerprint(folder: Path, without: Path) -> str:
    """A hash of the names, sizes and times of all files below a folder, but not of their bytes.

    Args:
        folder: Of the labelled images.
        without: Where results of this benchmark are written, which do not count.
    """
    digest = hashlib.sha256()
    folder, without = folder.resolve(), without.resolve()
    for path in sorted(folder.rglob("*")):
        is_result = path.parent == without and Path(RESULTS_NAME).stem in path.name
        if path.is_file() and not is_result:
            found = path.stat()
            facts = (str(path.relative_to(folder)), found.st_size, found.st_mtime_ns)
            digest.update(repr(facts).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _label_scale(config: NucleiConfig, images: LabelledImages) -> float | None:
    """Microns per pixel of the labelled images."""
    return config.label_scale or images.microns_per_pixel


def _cleaning(config: NucleiConfig, images: LabelledImages) -> Cleaning:
    """How masks are cleaned, at the scale of the labelled images."""
    scale = _label_scale(config, images)
    if scale is None:
        scale = USUAL_SCALE
        logger.warning(
            "%s: the scale of its images is unknown, so masks are cleaned as at %s microns per "
            "pixel. Give --label-scale if it is another.",
            images.path,
            scale,
        )
    return Cleaning(scale)


def _look(config: NucleiConfig, images: LabelledImages) -> tuple[float, bool | None]:
    """How images are enlarged, and whether they are looked at through windows.

    Raises:
        ConfigError: If their scale is asked for and unknown.
    """
    if config.scale is None:
        return 1.0, {"auto": None, "whole": False, "windows": True}[config.view]
    scale = _label_scale(config, images)
    if scale is None:
        raise ConfigError(
            f"{images.path}: the scale of its images is unknown. "
            f"Give --label-scale in microns per pixel, or drop --scale."
        )
    return scale / config.scale, True


def _baselines(scorer: Scorer, num_masks: int, cleaning: Cleaning) -> Iterator[tuple[str, Predict]]:
    chosen_on = (scorer.images[int(n)].pixels for n in np.flatnonzero(scorer.calibration))
    yield "otsu_haematoxylin", otsu_on_haematoxylin
    yield "otsu_haematoxylin_cleaned", partial(otsu_on_haematoxylin, cleaning=cleaning)
    yield "otsu_macenko", OtsuOnMacenko()
    yield "otsu_macenko_cleaned", OtsuOnMacenko(cleaning)
    yield "kmeans_hed", kmeans_in_hed(chosen_on, num_masks, scorer.seed)
    yield "everything_foreground", everything_foreground


def _tell_without_stains(name: str, predict: Predict) -> None:
    if isinstance(predict, OtsuOnMacenko) and predict.num_without_stains:
        logger.warning(
            "%s: no two stains were found in %d of %d images; there the stain vectors of Ruifrok "
            "and Johnston were taken.",
            name,
            predict.num_without_stains,
            predict.num_images,
        )


def _checkpoints(
    run: Path, device: str | torch.device
) -> tuple[list[KeptCheckpoint], dict[KeptCheckpoint, TrainedMaskModel]]:
    """What there is to score, oldest first, and the first of it.

    That one tells how many masks there are before anything is scored, and is not read again then.
    """
    if run.is_file():
        first = load_for_scoring(run, device)
        found = [KeptCheckpoint.of(first.iteration, run)]
    else:
        found = kept_checkpoints(run)
        first = load_for_scoring(found[0].path, device)
    return found, {found[0]: first}


def _in_order(
    checkpoints: list[KeptCheckpoint],
    done: Mapping[tuple[int, str], MethodScores],
    beside: Mapping[tuple[int, str], Differences],
) -> tuple[CheckpointScores, ...]:
    return tuple(
        CheckpointScores(
            each.iteration, each.sha256, done[each.key], str(each.path), beside[each.key]
        )
        for each in checkpoints
        if each.key in done
    )
