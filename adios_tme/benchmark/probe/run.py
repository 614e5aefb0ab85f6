"""The probes of every checkpoint of a run, beside what needs no training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adios_tme.benchmark.checkpoints import KeptCheckpoint, kept_checkpoints
from adios_tme.benchmark.probe.classifiers import NUM_FOLDS, STRENGTHS, require_scikit_learn
from adios_tme.benchmark.probe.describe import (
    ColourStatistics,
    Reading,
    features_of,
    timm_features,
)
from adios_tme.benchmark.probe.metrics import CONFIDENCE, FEWEST_SLIDES, NUM_RESAMPLES
from adios_tme.benchmark.probe.results import (
    COLOUR,
    RANDOM,
    RESULTS_NAME,
    Results,
    SetResults,
    read_finished,
)
from adios_tme.benchmark.probe.set_scores import Progress, Rival, SetScores
from adios_tme.benchmark.probe.sets import ProbeSet, open_sets
from adios_tme.benchmark.results_file import ResultsFile
from adios_tme.config.commands.probe import ProbeConfig
from adios_tme.errors import CheckpointError
from adios_tme.pretrained import TrainedEncoder, load_encoder_for_scoring, untrained_encoder
from adios_tme.terminal import Count
from adios_tme.version import __version__

Device = str | torch.device


def probe_run(
    config: ProbeConfig, device: Device = "cpu", on_progress: Progress | None = None
) -> Results:
    """Probe every ``checkpoint_iter_*.pth``; those that were probed under this protocol stay.

    What was probed earlier counts as long as the weights, the images, the settings and the versions
    are the same.

    Args:
        config: Run, sets, protocol and output folder; written to after every checkpoint.
        device: Where encoders run.
        on_progress: Called with the images done and their number over all that is to be probed.

    Raises:
        ConfigError: If a package that is needed is missing, or settings do not fit the sets.
        DataError: If a set cannot be used, or the output folder holds scores of another one.
        CheckpointError: If there is no checkpoint, or one is damaged or of another shape.
    """
    require_scikit_learn()
    sets = open_sets(config)
    checkpoints, opened = _checkpoints(config.run, device)
    first = next(iter(opened.values()), None)
    output = ResultsFile.checked(config.output / RESULTS_NAME)
    run = str(_folder(config.run)) if config.run else None
    asked = [SetResults.without_scores(each.name, _protocol(config, each, first)) for each in sets]
    before = read_finished(config.output / RESULTS_NAME, run, asked)
    rivals = _rivals(config, checkpoints, device)
    with ThreadPoolExecutor(config.num_workers) as threads:
        reading = Reading(config.batch_size, threads, config.num_workers)
        scores = [
            SetScores(each, old, reading, config) for each, old in zip(sets, before, strict=True)
        ]

        def found() -> Results:
            return Results(run, tuple(each.results(checkpoints) for each in scores))

        count = Count(on_progress, sum(each.num_to_do(rivals, checkpoints) for each in scores))
        for rival in rivals:
            for each in scores:
                each.add_rival(rival, count)
        for checkpoint in checkpoints:
            if any(each.lacks(checkpoint) for each in scores):
                trained = opened.pop(checkpoint, None) or load_encoder_for_scoring(
                    checkpoint.path, device
                )
                _check_shape(trained, first, checkpoint.path)
                describer = features_of(trained, config.pool, device)
                for each in scores:
                    each.add_checkpoint(checkpoint, describer, count)
                output.write(found().as_json())
        results = found()
        output.write(results.as_json())
    return results


def _rivals(
    config: ProbeConfig, checkpoints: Sequence[KeptCheckpoint], device: Device
) -> list[Rival]:
    if not checkpoints:
        return []
    untrained = untrained_encoder(checkpoints[0].path, config.seed, device)
    rivals = [
        Rival(RANDOM, features_of(untrained, config.pool, device)),
        Rival(COLOUR, ColourStatistics()),
    ]
    for name in config.rival:
        describer, model = timm_features(name, device)
        rivals.append(Rival(name, describer, _digest(model)))
    return rivals


def _digest(model: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _checkpoints(
    run: Path | None, device: Device
) -> tuple[list[KeptCheckpoint], dict[KeptCheckpoint, TrainedEncoder]]:
    """What there is to probe, oldest first, and the first of it, which tells the shape."""
    if run is None:
        return [], {}
    if run.is_file():
        first = load_encoder_for_scoring(run, device)
        kept = [KeptCheckpoint.of(first.iteration, run)]
    else:
        kept = kept_checkpoints(run)
        first = load_encoder_for_scoring(kept[0].path, device)
    return kept, {kept[0]: first}


def _check_shape(trained: TrainedEncoder, first: TrainedEncoder | None, path: Path) -> None:
    assert first is not None
    own, others = _shape(trained), _shape(first)
    if own != others:
        name = next(name for name in own if own[name] != others[name])
        raise CheckpointError(
            f"{path}: its encoder is not that of the first checkpoint: {name} is {own[name]}, "
            f"there {others[name]}. Move it to the folder of its own run."
        )


def _shape(trained: TrainedEncoder) -> dict[str, Any]:
    images = {"img_size": trained.img_size, "mean": list(trained.mean), "std": list(trained.std)}
    return {**trained.sizes, **images}


def _folder(run: Path) -> Path:
    run = run.resolve()
    return run.parent if run.is_file() else run


def _protocol(config: ProbeConfig, each: ProbeSet, first: TrainedEncoder | None) -> dict[str, Any]:
    """Every fact that a number depends on."""
    encoder = None
    if each.is_images and first is not None:
        encoder = {**_shape(first), "pool": config.pool}
    return {
        **each.facts(),
        "test_fraction": config.test_fraction if each.parts.split_by != "folders" else None,
        "seed": config.seed,
        "k": config.k,
        "knn_temperature": config.knn_temperature,
        "strengths": list(STRENGTHS),
        "num_folds": NUM_FOLDS,
        "encoder": encoder,
        "confidence": CONFIDENCE,
        "num_resamples": NUM_RESAMPLES,
        "fewest_slides": FEWEST_SLIDES,
        "versions": {
            "adios_tme": __version__,
            "torch": metadata.version("torch"),
            "timm": metadata.version("timm"),
            "scikit-learn": metadata.version("scikit-learn"),
        },
    }
