"""The JSON of the nuclei benchmark, whose keys users parse, and the way back from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adios_tme.benchmark.nuclei.results import (
    RESULTS_NAME,
    ChannelScores,
    CheckpointScores,
    Cost,
    Interval,
    MethodScores,
    NoLabelsChoice,
    Results,
    Scores,
    TissueScores,
    read_finished,
)
from adios_tme.benchmark.nuclei.run import score_run
from adios_tme.config.commands.benchmark import NucleiConfig
from adios_tme.data.synthetic import render_tissue
from adios_tme.distributed.world import World
from adios_tme.errors import DataError
from adios_tme.run_folder.checkpoints import write_checkpoint
from adios_tme.training.state import Run
from tests.factories import tiny_config

SCORES = ["iou", "dice", "precision", "recall", "auprc", "aji", "pq", "dq", "sq"]
INTERVALS = [f"{score}.{part}" for score in SCORES for part in ("mean", "std", "low", "high")]
RAW, CLEANED = (
    ["fixed", "no_labels"],
    ["fixed_cleaned", "no_labels_cleaned", "no_labels_by_area", "no_labels_with_stain"],
)
PAIRED = ["iou", "aji", "pq"]


def method_keys(*, is_baseline: bool, tissues: bool) -> list[str]:
    def cleaned(name: str) -> list[str]:
        return [name] if is_baseline else [f"{name}.{part}" for part in INTERVALS]

    scored = [*RAW, "oracle"] if is_baseline else [*RAW, *CLEANED, "oracle"]
    return [
        "channel",
        "threshold",
        *(f"fixed.{name}" for name in INTERVALS),
        *cleaned("fixed_cleaned"),
        *(f"no_labels.{name}" for name in INTERVALS),
        *cleaned("no_labels_cleaned"),
        *cleaned("no_labels_by_area"),
        *cleaned("no_labels_with_stain"),
        *(f"no_labels_choice.{name}" for name in ("channel", "threshold", "correlation[]")),
        *(f"oracle.{name}" for name in INTERVALS),
        "random_channel_iou",
        "channels[].best_share",
        *(f"channels[].{score}" for score in SCORES),
        *(TISSUES if tissues else ["tissues", "mean_over_tissues"]),
        *(f"per_image.{name}.{score}" for name in sorted(scored, key=ORDER) for score in PAIRED),
    ]


ORDER = ["fixed", "fixed_cleaned", "no_labels", *CLEANED[1:], "oracle"].index
DIFFERENCE = ["than", "mean", "low", "high"]
TISSUES = [
    "tissues.Breast.num_images",
    *(f"tissues.Breast.{score}" for score in SCORES),
    *(f"mean_over_tissues.{score}" for score in SCORES),
]
PROTOCOL = [
    "run",
    "data_set",
    "path",
    "files",
    "num_images",
    "num_calibration",
    "calibration",
    "seed",
    "num_masks",
    "view",
    "scale",
    "label_scale",
    "cleaning.scale_is_assumed",
    "cleaning.microns_per_pixel",
    "cleaning.smoothing_um",
    "cleaning.opening_um",
    "cleaning.smallest_um2",
    "cleaning.largest_hole_um2",
    "segmentations[]",
    "with_stain.mask_weight",
    "with_stain.least_mean",
    "oracle_threshold",
    "thresholds[]",
    "confidence",
    "num_resamples",
    "versions.adios_tme",
    "versions.torch",
    "versions.scikit-image",
    "versions.scipy",
]


def paths_of(tree: Any, path: str = "") -> Iterator[str]:
    """The way to every value, each once and in order; that to a container only if it is empty."""
    seen: dict[str, None] = {}
    if isinstance(tree, dict) and tree:
        for name, part in tree.items():
            seen |= dict.fromkeys(paths_of(part, f"{path}.{name}" if path else name))
    elif isinstance(tree, list) and tree:
        for part in tree:
            seen |= dict.fromkeys(paths_of(part, f"{path}[]"))
    else:
        seen[path] = None
    yield from seen


def pannuke(path: Path, tissue: str) -> Path:
    images, labels = render_tissue(4, 32, seed=1)
    masks = np.zeros((*labels.shape, 6))
    masks[..., 0] = labels
    for kind in ("images", "masks"):
        (path / "Fold 1" / kind / "fold1").mkdir(parents=True)
    np.save(path / "Fold 1/images/fold1/images.npy", images)
    np.save(path / "Fold 1/images/fold1/types.npy", np.array([tissue] * 4))
    np.save(path / "Fold 1/masks/fold1/masks.npy", masks)
    return path


@pytest.mark.parametrize("tissue", ["Breast", ""])
def test_keys_are_those_that_users_know(tissue: str, tmp_path: Path) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path), World(0, 1, 0, 1, torch.device("cpu")))
    run.advance()
    (tmp_path / "run").mkdir()
    write_checkpoint(run.state(), tmp_path / "run")
    labelled = pannuke(tmp_path / "data", tissue)
    score_run(NucleiConfig(run=tmp_path / "run", pannuke=labelled, output=tmp_path, num_workers=1))
    saved = json.loads((tmp_path / RESULTS_NAME).read_text())
    baselines = (
        "otsu_haematoxylin",
        "otsu_haematoxylin_cleaned",
        "otsu_macenko",
        "otsu_macenko_cleaned",
        "kmeans_hed",
        "everything_foreground",
    )
    of_baseline = method_keys(is_baseline=True, tissues=bool(tissue))
    of_model = method_keys(is_baseline=False, tissues=bool(tissue))
    differences = [f"{score}.{part}" for score in PAIRED for part in DIFFERENCE]
    assert list(paths_of(saved)) == [
        *(f"protocol.{name}" for name in PROTOCOL),
        *(f"baselines.{baseline}.{name}" for baseline in baselines for name in of_baseline),
        *(f"checkpoints[].{name}" for name in ("iteration", "sha256", *of_model, "checkpoint")),
        *(
            f"checkpoints[].differences.{name}.{part}"
            for name in sorted([*RAW, *CLEANED], key=ORDER)
            for part in differences
        ),
        *(
            f"course.{name}.{part}"
            for name in sorted([*RAW, *CLEANED, "oracle"], key=ORDER)
            for part in ("best", "last", *(f"last_minus_best.{part}" for part in differences))
        ),
        "left_out",
    ]


def nine(start: float) -> list[float]:
    return [start + number / 100 for number in range(9)]


def method(start: float, *, tissues: bool) -> MethodScores:
    """Each value another one, but for AUPRC, which no image has."""
    intervals = [Interval(mean, mean / 2, mean / 3, mean / 4) for mean in nine(start)]
    intervals[4] = Interval(None, None, None, None)
    means: list[float | None] = [*nine(start / 5)]
    means[4] = None
    images = tuple(round(start / 7 + number / 100, 4) for number in range(5))
    return MethodScores(
        channel=2,
        threshold=0.35,
        fixed=Scores(*intervals),
        fixed_cleaned=Scores(*intervals[::-1]) if tissues else None,
        no_labels=Scores(*intervals),
        no_labels_cleaned=None,
        no_labels_by_area=Scores(*intervals[::-1]) if tissues else None,
        no_labels_with_stain=None,
        no_labels_choice=NoLabelsChoice(1, 0.5, (0.7, -0.25)),
        oracle=Scores(*intervals[::-1]),
        random_channel_iou=start / 6,
        channels=(ChannelScores(0.25, Scores(*means)), ChannelScores(0.75, Scores(*means[::-1]))),
        tissues={"Breast": TissueScores(7, Scores(*means))} if tissues else {},
        mean_over_tissues=Scores(*means[::-1]) if tissues else None,
        per_image={"fixed": {"iou": images, "aji": images[::-1]}},
    )


WRITTEN = {"run": "r", "path": "p", "seed": 1}


@pytest.fixture
def results() -> Results:
    first, second = (method(start, tissues=tissues) for start, tissues in ((0.1, True), (2, False)))
    checkpoints = (
        CheckpointScores(1, "a", first, "one.pth"),
        CheckpointScores(2, "b", second, "two.pth"),
    )
    left_out = [{"reason": "junk", "count": 1, "examples": ["x"]}]
    return Results(WRITTEN, {"otsu": second}, checkpoints, left_out, Cost(3))


def write(tree: dict[str, Any], folder: Path) -> Path:
    (folder / RESULTS_NAME).write_text(json.dumps(tree))
    return folder / RESULTS_NAME


def test_what_is_written_is_read_back(results: Results, tmp_path: Path) -> None:
    found = read_finished(write(results.as_json(), tmp_path), WRITTEN)
    assert found.baselines == results.baselines
    assert found.checkpoints == {each.key: each.scores for each in results.checkpoints}
    assert [entry["reason"] for entry in found.left_out.as_json()] == ["junk"]


def test_scores_under_another_protocol_are_not_read(results: Results, tmp_path: Path) -> None:
    tree = results.as_json()
    tree["baselines"]["otsu"] = {"scores": "of another version"}
    found = read_finished(write(tree, tmp_path), WRITTEN | {"seed": 2})
    assert (found.baselines, found.checkpoints) == ({}, {})
    assert not found.left_out


@pytest.mark.parametrize(
    "name",
    ["fixed", "channels", "tissues", "mean_over_tissues", "threshold", "no_labels", "per_image"],
)
@pytest.mark.parametrize("wrong", ["x", [1], {"iou": 1}])
def test_scores_that_are_none_are_refused(
    name: str, wrong: object, results: Results, tmp_path: Path
) -> None:
    tree = results.as_json()
    tree["checkpoints"][0][name] = wrong
    with pytest.raises(DataError, match="is not a result of this benchmark"):
        read_finished(write(tree, tmp_path), WRITTEN)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_checkpoint_without_an_iteration_is_refused(
    seed: int, results: Results, tmp_path: Path
) -> None:
    tree = results.as_json()
    del tree["checkpoints"][1]["iteration"]
    with pytest.raises(DataError, match="is not a result of this benchmark"):
        read_finished(write(tree, tmp_path), WRITTEN | {"seed": seed})
