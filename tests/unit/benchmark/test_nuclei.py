"""Scores, protocols, labels and results of the nuclei benchmark."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adios_tme.benchmark.baselines import baseline_ious, otsu_on_haematoxylin
from adios_tme.benchmark.datasets import LabelFolder
from adios_tme.benchmark.nuclei import RESULTS_NAME, score_run
from adios_tme.benchmark.protocol import calibration_part, score_channels
from adios_tme.benchmark.report import draw_results, in_words, results_table, write_csv
from adios_tme.benchmark.scores import ORACLE_THRESHOLD, THRESHOLDS, iou, iou_at_thresholds
from adios_tme.checkpoint import write_checkpoint
from adios_tme.data.synthetic import render_tissue, write_sample
from adios_tme.distributed import World
from adios_tme.errors import CheckpointError, DataError
from adios_tme.training.state import Run
from tests.factories import tiny_config


def test_iou_at_every_threshold_equals_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 20, 20)).round(2)  # many values stand exactly on a threshold
    truth = rng.random((20, 20)) < 0.3
    found = iou_at_thresholds(masks, truth)
    expected = [[iou(mask >= threshold, truth) for threshold in THRESHOLDS] for mask in masks]
    np.testing.assert_allclose(found, expected)


def test_nothing_found_where_nothing_is_counts_as_right() -> None:
    empty = np.zeros((4, 4), dtype=bool)
    assert iou(empty, empty) == 1
    assert (iou_at_thresholds(np.zeros((1, 4, 4)), empty) == 1).all()
    assert iou(~empty, empty) == 0


def test_oracle_and_fixed_by_hand() -> None:
    half = ORACLE_THRESHOLD
    scores = np.zeros((3, 2, len(THRESHOLDS)))
    scores[0, 0, half], scores[0, 1, half] = 0.9, 0.1  # calibration: channel 1 at one half
    scores[1, 0, half], scores[1, 1, half] = 0.2, 0.8  # test: the oracle takes channel 2
    scores[2, 0, half], scores[2, 1, half] = 0.6, 0.4
    found = score_channels(scores, np.array([True, False, False]))
    assert found.oracle_iou_mean == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert found.fixed_channel == 1
    assert found.fixed_threshold == pytest.approx(0.5)
    assert found.fixed_iou_mean == pytest.approx((0.2 + 0.6) / 2)
    assert found.random_channel_iou_mean == pytest.approx((0.4 + 0.6) / 2)
    assert found.best_channel_shares == pytest.approx((2 / 3, 1 / 3))


def test_the_calibration_part_is_seeded_and_never_everything() -> None:
    assert calibration_part(10, 0.2, seed=1).sum() == 2
    assert (calibration_part(10, 0.2, 1) == calibration_part(10, 0.2, 1)).all()
    assert calibration_part(2, 0.99, seed=0).sum() == 1
    with pytest.raises(DataError, match="cannot be split"):
        calibration_part(1, 0.5, 0)


def test_otsu_finds_clean_nuclei() -> None:
    images, labels = render_tissue(4, 64, seed=2)
    for image, label in zip(images, labels, strict=True):
        scores = baseline_ious(image, label > 0)
        assert scores["otsu_haematoxylin"] > 0.8
        assert scores["everything_foreground"] == pytest.approx((label > 0).mean())
    assert otsu_on_haematoxylin(images[0]).dtype == bool


def folder_with(folder: Path, label: np.ndarray, name: str = "a.png") -> Path:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / "a.png")
    Image.fromarray(label).save(folder / "labels" / name)
    return folder


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_labels_are_instance_ids(suffix: str, tmp_path: Path) -> None:
    label = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    (image,) = LabelFolder(folder_with(tmp_path, label, f"a.{suffix}"))
    assert image.labels.tolist() == label.tolist()
    assert image.pixels.shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("label", "name", "text"),
    [
        (np.zeros((8, 8), np.uint8), "a.png", "8 bits"),
        (np.zeros((8, 8, 3), np.uint8), "a.png", "colour image"),
        (np.zeros((9, 8), np.uint16), "a.png", "is 8 x 9 px, its image 8 x 8 px"),
        (np.zeros((8, 8), np.uint16), "b.png", "has no label"),
    ],
)
def test_wrong_labels_are_named(label: np.ndarray, name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        list(LabelFolder(folder_with(tmp_path, label, name)))


def test_another_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no images/"):
        LabelFolder(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        LabelFolder(tmp_path)


@pytest.fixture
def run_with_two_checkpoints(tmp_path: Path) -> Path:
    run = Run.build(tiny_config(tmp_path, tmp_path), World(0, 1, 0, 1, torch.device("cpu")))
    (tmp_path / "run").mkdir()
    for _ in range(2):
        run.advance()
        write_checkpoint(run.state(), tmp_path / "run")
    return tmp_path / "run"


def test_every_checkpoint_is_scored_once(run_with_two_checkpoints: Path, tmp_path: Path) -> None:
    labels = write_sample(tmp_path / "s", num_slides=1, patches_per_slide=1, size_px=32).nuclei
    out, steps = tmp_path / "out", []

    def score() -> dict[str, object]:
        results = score_run(
            run_with_two_checkpoints, labels, out, on_progress=lambda at, total: steps.append(total)
        )
        write_csv(results, out / "x.csv")
        draw_results(results, out / "x.png")
        assert len(results_table(results).rows) == 2
        assert "finds nuclei with IoU" in in_words(results)
        saved: dict[str, object] = json.loads((out / RESULTS_NAME).read_text())
        return saved

    first = score()
    assert steps == [64] * 64  # 32 images of two checkpoints
    assert score() == first
    assert len(steps) == 64
    with (out / "x.csv").open() as file:
        methods = [row["method"] for row in csv.DictReader(file)]
    assert methods == ["mask model"] * 2 + ["otsu_haematoxylin", "everything_foreground"]


def test_a_run_without_checkpoints_is_named(tmp_path: Path) -> None:
    labels = write_sample(tmp_path / "s", num_slides=1, patches_per_slide=1, size_px=32).nuclei
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        score_run(tmp_path, labels, tmp_path / "out")


def test_masks_that_are_not_finite_are_named(
    run_with_two_checkpoints: Path, tmp_path: Path
) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path), World(0, 1, 0, 1, torch.device("cpu")))
    with torch.no_grad():
        next(run.bare_mask_model.parameters()).fill_(float("nan"))
    run.iteration = 9
    write_checkpoint(run.state(), run_with_two_checkpoints)
    labels = write_sample(tmp_path / "s", num_slides=1, patches_per_slide=1, size_px=32).nuclei
    with pytest.raises(CheckpointError, match="not finite"):
        score_run(run_with_two_checkpoints, labels, tmp_path / "out")
