"""Scores, protocols, labels and results of the nuclei benchmark."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from adios_tme.benchmark.nuclei.aggregate import calibration_part, choose, summarise
from adios_tme.benchmark.nuclei.during_training import evaluator
from adios_tme.benchmark.nuclei.label_folder import LabelFolder
from adios_tme.benchmark.nuclei.pixel_scores import (
    THRESHOLDS,
    BlindChoice,
    Choice,
    Chosen,
    ImageScores,
    score_image,
    score_mask,
    score_pixels,
)
from adios_tme.benchmark.nuclei.report import (
    cost_summary,
    no_labels_table,
    results_table,
    tissues_table,
    write_report,
)
from adios_tme.benchmark.nuclei.results import RESULTS_NAME, SCORES, Results
from adios_tme.benchmark.nuclei.run import score_run
from adios_tme.benchmark.nuclei.verdict import NAMES, summary
from adios_tme.config.commands.benchmark import NucleiConfig
from adios_tme.data.synthetic import write_sample
from adios_tme.distributed.world import World
from adios_tme.errors import AdiosError, CheckpointError, ConfigError, DataError
from adios_tme.inference.sliding_window import MaskPredictor
from adios_tme.models.mask_models.generator import MaskGenerator
from adios_tme.models.mask_models.windows import CPU_BATCH, window_starts
from adios_tme.run_folder import checkpoints as checkpoints_module
from adios_tme.run_folder.checkpoints import (
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from adios_tme.training.state import Run
from tests.factories import tiny_config


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    union = (found | truth).sum()
    return float((found & truth).sum() / union) if union else 1.0


def test_every_threshold_equals_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 20, 20)).round(2)  # many values stand exactly on a threshold
    truth = rng.random((20, 20)) < 0.3
    expected = [[iou(mask >= threshold, truth) for threshold in THRESHOLDS] for mask in masks]
    np.testing.assert_allclose(score_pixels(masks, truth).iou, expected)


def test_a_binary_mask_scores_as_its_threshold_does() -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((20, 20)).round(2)
    truth = rng.integers(-1, 3, (20, 20)).astype(np.int32)
    expected = score_pixels(mask[None], truth)
    for number, threshold in enumerate(THRESHOLDS):
        found = score_mask(mask >= threshold, truth)
        for name, value in zip(("iou", "dice", "precision", "recall"), found, strict=True):
            assert value == getattr(expected, name)[0, number]


def test_nothing_found_where_nothing_is_counts_as_right() -> None:
    empty = np.zeros((4, 4), dtype=bool)
    none, all_of_it = (score_pixels(np.full((1, 4, 4), value), empty) for value in (0.0, 1.0))
    for name in ("iou", "dice", "precision", "recall"):
        assert (getattr(none, name) == 1).all()
        assert (getattr(all_of_it, name) == 0).all()
    assert np.isnan(none.auprc).all()


def scored(masks: NDArray[np.float32], truth: NDArray[np.int32], choice: Choice) -> ImageScores:
    """By the same channel and threshold with labels and without."""
    blind = BlindChoice(choice.channel, float(THRESHOLDS[choice.threshold]), (0.0,))
    grey = np.zeros((*truth.shape, 3), np.uint8)
    return score_image(masks, grey, truth, Chosen(choice, blind))


def chosen(choice: Choice) -> Chosen:
    return Chosen(choice, BlindChoice(1, 0.5, (0.1, 0.2)))


def halves(first: float, second: float) -> NDArray[np.float32]:
    """Two channels that are right on some share of a label that fills the image."""
    masks = np.zeros((2, 10, 10), np.float32)
    masks[0, : round(10 * first)] = masks[1, : round(10 * second)] = 0.6
    return masks


def test_oracle_and_fixed_by_hand() -> None:
    truth = np.ones((10, 10), np.int32)
    shares = [(0.9, 0.1), (0.2, 0.8), (0.6, 0.4)]
    calibration = np.array([True, False, False])
    choice = choose(score_pixels(halves(*shares[0]), truth > 0).iou[None])
    assert choice.channel == 0
    grey = np.zeros((10, 10, 3), np.uint8)
    scores = [score_image(halves(*pair), grey, truth, chosen(choice)) for pair in shares]
    found = summarise(scores, calibration, chosen(choice), ["a", "a", "b"], seed=0)
    assert found.oracle.iou.mean == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert found.channel == 1
    assert found.fixed.iou.mean == pytest.approx((0.2 + 0.6) / 2)
    assert found.fixed.recall.mean == pytest.approx((0.2 + 0.6) / 2)
    assert found.fixed.precision.mean == pytest.approx(1.0)
    assert (found.no_labels_choice.channel, found.no_labels_choice.threshold) == (2, 0.5)
    assert found.no_labels.iou.mean == pytest.approx((0.8 + 0.4) / 2)
    assert found.fixed_cleaned is None
    assert found.per_image["fixed"]["iou"] == (0.2, 0.6)
    assert found.per_image["no_labels"]["iou"] == (0.8, 0.4)
    assert found.per_image["oracle"]["iou"] == (0.9, 0.8, 0.6)
    assert found.random_channel_iou == pytest.approx((0.4 + 0.6) / 2)
    assert [each.best_share for each in found.channels] == pytest.approx([2 / 3, 1 / 3])
    assert [each.means.iou for each in found.channels] == pytest.approx([1.7 / 3, 1.3 / 3])
    # A nucleus found by more than half of it counts as found.
    assert [each.means.dq for each in found.channels] == pytest.approx([2 / 3, 1 / 3])
    assert found.tissues["b"].means.iou == pytest.approx(0.6)
    assert found.mean_over_tissues is not None
    assert found.mean_over_tissues.iou == pytest.approx((0.2 + 0.6) / 2)
    assert found.fixed.iou.low == pytest.approx(0.2)
    assert found.fixed.iou.high == pytest.approx(0.6)


def test_intervals_cover_the_mean_of_many_images() -> None:
    rng = np.random.default_rng(0)
    truth = np.ones((10, 10), np.int32)
    scores = [scored(halves(share, 0.0), truth, Choice(0, 0)) for share in rng.random(200)]
    found = summarise(scores, np.arange(200) < 1, chosen(Choice(0, 0)), [None] * 200, seed=0)
    iou_of = found.fixed.iou
    assert iou_of.mean is not None
    assert iou_of.std is not None
    assert iou_of.low is not None
    assert iou_of.high is not None
    # Half the width of a 95 % interval of the mean is 1.96 standard errors.
    assert (iou_of.high - iou_of.low) / 2 == pytest.approx(
        1.96 * iou_of.std / np.sqrt(199), rel=0.15
    )
    assert iou_of.low < iou_of.mean < iou_of.high
    assert found.tissues == {}
    assert set(vars(found.fixed)) == set(SCORES)


def test_the_calibration_part_is_seeded_and_never_everything() -> None:
    parts = [""] * 10
    assert calibration_part(parts, "0.2", seed=1).sum() == 2
    assert (calibration_part(parts, "0.2", 1) == calibration_part(parts, "0.2", 1)).all()
    assert calibration_part(["", ""], "0.99", seed=0).sum() == 1
    folds = ["Fold 1"] * 3 + ["Fold 2"] * 2
    assert calibration_part(folds, "Fold 2", 0).tolist() == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("parts", "chosen", "kind", "text"),
    [
        (["a"], "0.5", DataError, "cannot be split"),
        (["a", "b"], "c", ConfigError, "no part of this data set.*one of a, b"),
        (["a", "a"], "a", ConfigError, "the only part"),
        (["", ""], "a", ConfigError, r"such as 0\.2\.$"),
        (["a", "b"], "7", ConfigError, "7 is no share"),
    ],
)
def test_an_impossible_calibration_is_named(
    parts: list[str], chosen: str, kind: type[AdiosError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        calibration_part(parts, chosen, 0)


def test_windows_cover_the_image_and_overlap() -> None:
    assert window_starts(30, 32) == [0]
    for length in (33, 64, 100, 1000):
        starts = window_starts(length, 32)
        assert (starts[0], starts[-1]) == (0, length - 32)
        assert np.diff(starts).max() <= 16


class PointwiseNetwork(torch.nn.Module):
    """Masks that follow the brightness of each pixel, so that windows cannot matter."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = torch.sigmoid(images.mean(dim=1, keepdim=True))
        return torch.cat([light, 1 - light], dim=1)


@pytest.mark.parametrize("size", [(20, 90), (32, 32), (75, 101)])
def test_windows_blend_to_what_the_whole_would_be(size: tuple[int, int]) -> None:
    generator = MaskGenerator(PointwiseNetwork(), 32, (0.5,) * 3, (0.2,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    masks = MaskPredictor(generator, windows=True)(pixels)
    light = 1 / (1 + np.exp(-((pixels / 255 - 0.5) / 0.2).mean(axis=2)))
    np.testing.assert_allclose(masks, np.stack([light, 1 - light]), atol=1e-5)


def test_a_zoomed_view_comes_back_at_the_images_size() -> None:
    generator = MaskGenerator(PointwiseNetwork(), 32, (0.5,) * 3, (0.2,) * 3)
    pixels = np.full((70, 50, 3), 200, np.uint8)
    masks = MaskPredictor(generator, windows=True, zoom=0.5)(pixels)
    assert masks.shape == (2, 70, 50)
    np.testing.assert_allclose(masks.sum(axis=0), 1, atol=1e-5)
    assert masks[0].std() < 1e-5


def folder_with(folder: Path, label: np.ndarray, name: str = "a.png") -> Path:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / "a.png")
    Image.fromarray(label).save(folder / "labels" / name)
    return folder


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_labels_are_instance_ids(suffix: str, tmp_path: Path) -> None:
    label = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    image = LabelFolder(folder_with(tmp_path, label, f"a.{suffix}"))[0]
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
        _ = LabelFolder(folder_with(tmp_path, label, name))[0]


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, np.zeros((8, 8), np.uint16))
    (folder / "images" / "a.png").unlink()
    (folder / "images" / "a.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(No such file or directory\)"):
        _ = LabelFolder(folder)[0]


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


def labelled(tmp_path: Path) -> Path:
    return write_sample(
        tmp_path / "s", num_slides=1, patches_per_slide=1, size_px=32, num_labelled=6
    ).nuclei


def test_every_method_is_scored_once(run_with_two_checkpoints: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    config = NucleiConfig(
        run=run_with_two_checkpoints,
        labels=labelled(tmp_path),
        output=tmp_path / "out",
        num_workers=2,
    )

    def score() -> Results:
        return score_run(config, on_progress=lambda done, total: steps.append((done, total)))

    first = score()
    assert steps == [(done, 48) for done in range(1, 49)]  # two checkpoints, six baselines
    assert json.loads((tmp_path / "out" / RESULTS_NAME).read_text()) == json.loads(
        json.dumps(first.as_json())
    )
    assert score() == first
    assert len(steps) == 48
    (run_with_two_checkpoints / "checkpoint_iter_00000002.pth").rename(
        run_with_two_checkpoints / "checkpoint_iter_00000003.pth"
    )
    score()
    assert steps[-1] == (6, 6)


def test_other_weights_and_other_labels_are_scored_again(
    run_with_two_checkpoints: Path, tmp_path: Path
) -> None:
    run, labels = run_with_two_checkpoints, labelled(tmp_path)
    config = NucleiConfig(run=run, labels=labels, output=labels)  # its files are no labels

    def score() -> tuple[Results, int]:
        steps: list[int] = []
        return score_run(config, on_progress=lambda done, total: steps.append(done)), len(steps)

    first, _ = score()
    assert score() == (first, 0)
    state = read_checkpoint(run / "checkpoint_iter_00000002.pth")
    state["mask_model"] = {name: weight * 2 for name, weight in state["mask_model"].items()}
    write_checkpoint(state, run)
    second, num_steps = score()
    assert num_steps == 6  # the six images, of that checkpoint
    assert second.checkpoints[0] == first.checkpoints[0]
    assert second.checkpoints[1] != first.checkpoints[1]
    label = sorted((labels / "labels").iterdir())[0]
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(label)
    assert score()[1] == 48


@dataclass
class Reads:
    """The checkpoints that were hashed and loaded, in order."""

    hashed: list[Path]
    loaded: list[Path]


@pytest.fixture
def reads(run_with_two_checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Reads:
    hash_bytes, load = checkpoints_module._hash, torch.load
    found = Reads([], [])

    def hash_and_count(file: BinaryIO, length: int) -> str:
        found.hashed.append(Path(file.name))
        return hash_bytes(file, length)

    def load_and_count(path: Path, **how: Any) -> Any:
        found.loaded.append(path)
        return load(path, **how)

    monkeypatch.setattr(checkpoints_module, "_hash", hash_and_count)
    monkeypatch.setattr(torch, "load", load_and_count)
    return found


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("saved_again", [False, True])
def test_a_scored_checkpoint_is_read_and_hashed_once(
    is_file: bool, saved_again: bool, run_with_two_checkpoints: Path, reads: Reads, tmp_path: Path
) -> None:
    paths = [path for _, path in list_checkpoints(run_with_two_checkpoints)]
    if saved_again:  # it does not carry its hash any more
        for path in paths:
            torch.save(torch.load(path), path)
    run = paths[1] if is_file else run_with_two_checkpoints
    expected = paths[1:] if is_file else paths
    config = NucleiConfig(run=run, labels=labelled(tmp_path), output=tmp_path / "out")
    reads.loaded.clear()
    first = score_run(config)
    assert [each.iteration for each in first.checkpoints] == ([2] if is_file else [1, 2])
    assert reads.loaded == expected
    assert sorted(reads.hashed) == expected
    reads.loaded.clear()
    assert score_run(config) == first
    assert reads.loaded == expected[:1]  # it tells how many masks there are


def test_scores_of_another_run_are_kept(run_with_two_checkpoints: Path, tmp_path: Path) -> None:
    labels, output = labelled(tmp_path), tmp_path / "out"
    score_run(NucleiConfig(run=run_with_two_checkpoints, labels=labels, output=output))
    before = (output / RESULTS_NAME).read_bytes()
    other = shutil.copytree(run_with_two_checkpoints, tmp_path / "other")
    for run, seen in ((other, labels), (run_with_two_checkpoints, labelled(other))):
        config = NucleiConfig(run=run, labels=seen, output=output)
        with pytest.raises(DataError, match=r"holds scores of .*run on .*s.nuclei. Give another"):
            score_run(config)
    assert (output / RESULTS_NAME).read_bytes() == before


def test_several_processes_score_as_one_does(
    run_with_two_checkpoints: Path, tmp_path: Path
) -> None:
    labels = labelled(tmp_path)
    results = [
        score_run(
            NucleiConfig(
                run=run_with_two_checkpoints,
                labels=labels,
                output=tmp_path / f"out{num_workers}",
                num_workers=num_workers,
            )
        )
        for num_workers in (1, 2)
    ]
    assert results[0] == results[1]


def test_the_report_has_a_line_for_every_method(
    run_with_two_checkpoints: Path, tmp_path: Path
) -> None:
    config = NucleiConfig(
        run=run_with_two_checkpoints, labels=labelled(tmp_path), output=tmp_path / "out"
    )
    results = score_run(config)
    write_report(results, config.output)
    with (config.output / "nuclei_benchmark.csv").open() as file:
        rows = list(csv.DictReader(file))
    raw = ("fixed", "oracle", "no_labels")
    cleaned = ("fixed_cleaned", "no_labels_cleaned", "no_labels_by_area", "no_labels_with_stain")
    assert [(row["method"], row["iteration"], row["protocol"]) for row in rows] == [
        *(
            ("mask model", iteration, protocol)
            for iteration in ("1", "2")
            for protocol in (*raw, *cleaned)
        ),
        *((name, "", protocol) for name in NAMES for protocol in raw),
    ]
    blind = results.checkpoints[0].scores.no_labels_choice
    assert [rows[number]["threshold"] for number in (1, 2, 5)] == ["", str(blind.threshold), ""]
    assert float(rows[0]["iou_mean"]) == results.checkpoints[0].scores.fixed.iou.mean
    assert len(results_table(results).rows) == len(no_labels_table(results).rows) == 8
    assert tissues_table(results) is None
    assert "finds nuclei with IoU" in summary(results)
    assert "ms an image and core to score" in cost_summary(results, 2)
    for suffix in ("png", "svg"):
        assert (config.output / f"nuclei_benchmark.{suffix}").stat().st_size > 5000
    plot = config.output / "nuclei_benchmark.svg"
    plot.unlink()
    plot.mkdir()
    with pytest.raises(DataError, match=r"benchmark\.svg: cannot be written \(Is a directory\)"):
        write_report(results, config.output)


def test_a_scale_that_is_not_known_is_asked_for(
    run_with_two_checkpoints: Path, tmp_path: Path
) -> None:
    given = {"run": run_with_two_checkpoints, "labels": labelled(tmp_path), "scale": 0.5}
    steps: list[int] = []
    with pytest.raises(ConfigError, match="Give --label-scale"):
        score_run(
            NucleiConfig(**given, output=tmp_path / "a"),
            on_progress=lambda done, total: steps.append(done),
        )
    assert steps == []  # nothing was scored before
    results = score_run(NucleiConfig(**given, output=tmp_path / "b", label_scale=0.25))
    looked = [results.protocol[name] for name in ("scale", "label_scale", "view")]
    assert looked == [0.5, 0.25, "windows"]


@pytest.mark.parametrize("label_scale", [None, 0.5])
def test_masks_are_cleaned_at_the_scale_of_the_images(
    label_scale: float | None,
    run_with_two_checkpoints: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = NucleiConfig(
        run=run_with_two_checkpoints / "checkpoint_iter_00000001.pth",
        labels=labelled(tmp_path),
        output=tmp_path / "out",
        label_scale=label_scale,
        num_workers=1,
    )
    results = score_run(config)
    cleaning = results.protocol["cleaning"]
    assert cleaning["microns_per_pixel"] == (label_scale or 0.25)
    assert cleaning["scale_is_assumed"] == (label_scale is None)
    told = "Give --label-scale if it is another."
    assert [told in text for text in caplog.messages] == ([True] if label_scale is None else [])
    # Its masks are cleaned as the baseline is.
    scores = results.newest.scores
    for name in ("fixed_cleaned", "no_labels_cleaned", "no_labels_by_area", "no_labels_with_stain"):
        assert getattr(scores, name).iou.mean == pytest.approx(
            np.mean(scores.per_image[name]["iou"]), abs=1e-4
        )
        assert results.newest.differences[name]["iou"].than.endswith("_cleaned")


def test_images_without_two_stains_are_told(
    run_with_two_checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = labelled(tmp_path)
    blank = sorted((labels / "images").iterdir())[0]
    Image.fromarray(np.full((32, 32, 3), 250, np.uint8)).save(blank)
    run = run_with_two_checkpoints / "checkpoint_iter_00000001.pth"
    score_run(NucleiConfig(run=run, labels=labels, output=tmp_path / "out", label_scale=0.25))
    assert [text.split(";")[0] for text in caplog.messages] == [
        f"{name}: no two stains were found in 1 of 6 images"
        for name in ("otsu_macenko", "otsu_macenko_cleaned")
    ]


@pytest.mark.parametrize(
    "given", [{"scale": 0.5, "label_scale": 0.25, "view": "whole"}, {"scale": 0.5, "view": "whole"}]
)
def test_no_setting_is_ignored(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="would be ignored"):
        NucleiConfig(run=Path("run"), labels=Path("labels"), **given)


@pytest.mark.parametrize("given", [{}, {"labels": Path("a"), "pannuke": Path("b")}])
def test_one_data_set_at_a_time(given: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="one data set is scored at a time"):
        NucleiConfig(run=Path("run"), **given)


def test_a_file_that_is_no_result_is_kept(run_with_two_checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RESULTS_NAME).write_text("{}")
    config = NucleiConfig(
        run=run_with_two_checkpoints, labels=labelled(tmp_path), output=tmp_path / "out"
    )
    with pytest.raises(DataError, match="is not a result of this benchmark"):
        score_run(config)
    assert (tmp_path / "out" / RESULTS_NAME).read_text() == "{}"


def test_a_run_without_checkpoints_is_named(tmp_path: Path) -> None:
    config = NucleiConfig(run=tmp_path, labels=labelled(tmp_path), output=tmp_path / "out")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        score_run(config)


def test_masks_that_are_not_finite_are_named(
    run_with_two_checkpoints: Path, tmp_path: Path
) -> None:
    run = Run.build(tiny_config(tmp_path, tmp_path), World(0, 1, 0, 1, torch.device("cpu")))
    with torch.no_grad():
        next(run.bare_mask_model.parameters()).fill_(float("nan"))
    run.iteration = 9
    path = write_checkpoint(run.state(), run_with_two_checkpoints)
    config = NucleiConfig(run=path, labels=labelled(tmp_path), output=tmp_path / "out")
    with pytest.raises(CheckpointError, match="not finite"):
        score_run(config)


def test_a_run_is_watched_on_the_same_few_images(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, eval_labels=labelled(tmp_path), eval_images=4)
    evaluate = evaluator(config.watch)
    assert evaluate is not None
    seen = []

    class Dark(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            dark = (images.mean(dim=1, keepdim=True) < 130 / 255).float()
            return torch.cat([1 - dark, dark], dim=1)

    generator = MaskGenerator(Dark(), 12, (0, 0, 0), (1, 1, 1))
    first, second = evaluate(generator), evaluate(generator)
    assert first == second
    assert (first["eval_channel"], first["eval_threshold"]) == (2, 0.05)
    assert 0.5 < first["eval_fixed_iou"] <= 1
    assert first["eval_no_labels_channel"] == 2
    assert first["eval_no_labels_iou"] > first["eval_fixed_iou"] - 0.1
    assert 0 < first["eval_no_labels_threshold"] < 1
    # The images of 32 px are more than twice as large: looked at through 5 x 5 windows.
    batches = [CPU_BATCH] * (25 // CPU_BATCH) + [25 % CPU_BATCH]
    assert [len(images) for images in seen] == batches * 4 * 2
    assert {images.shape[1:] for images in seen} == {(3, 12, 12)}
    assert evaluator(tiny_config(tmp_path, tmp_path).watch) is None
    for path in sorted((tmp_path / "s" / "nuclei").glob("*/*"))[1:]:
        if path.stem != "tissue_001":
            path.unlink()
    with pytest.raises(DataError, match="one labelled image cannot serve"):
        evaluator(config.watch)
