"""What is said of a run: like with like, and no word without an interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from adios_tme.benchmark.nuclei.results import (
    CheckpointScores,
    Interval,
    MethodScores,
    NoLabelsChoice,
    Results,
    Scores,
)
from adios_tme.benchmark.nuclei.verdict import course_of, differences, summary

SIZE = 40
PARTS = (
    "fixed",
    "fixed_cleaned",
    "no_labels",
    "no_labels_cleaned",
    "no_labels_by_area",
    "no_labels_with_stain",
)
RNG = np.random.default_rng(0)
#: How hard each image is: much larger than what tells methods apart.
HARDNESS = RNG.uniform(0.2, 0.7, SIZE)


def method(per_image: dict[str, NDArray[np.float64]], aji: float = 0.0) -> MethodScores:
    means = Scores(*[Interval(0.5, 0.1, 0.4, 0.6)] * 9)
    return MethodScores(
        channel=3,
        threshold=0.45,
        fixed=means,
        fixed_cleaned=None,
        no_labels=means,
        no_labels_cleaned=None,
        no_labels_by_area=None,
        no_labels_with_stain=None,
        no_labels_choice=NoLabelsChoice(2, 0.31, (0.1, 0.77, -0.2)),
        oracle=means,
        random_channel_iou=0.2,
        channels=(),
        tissues={},
        mean_over_tissues=None,
        per_image={
            name: {
                "iou": tuple(values.tolist()),
                "aji": tuple((values + aji).tolist()),
                "pq": tuple(values.tolist()),
            }
            for name, values in per_image.items()
        },
    )


def model(shift: float, noise: float = 0.01) -> MethodScores:
    values = HARDNESS + shift + RNG.normal(0, noise, SIZE)
    return method(dict.fromkeys((*PARTS, "oracle"), values))


BASELINES = {
    "otsu_haematoxylin": method(dict.fromkeys(PARTS[::2], HARDNESS)),
    "otsu_haematoxylin_cleaned": method(dict.fromkeys(PARTS[::2], HARDNESS + 0.1)),
    "kmeans_hed": method(dict.fromkeys(PARTS[::2], HARDNESS - 0.1), aji=0.15),
}


def results(*checkpoints: MethodScores) -> Results:
    scored = tuple(
        CheckpointScores(100 * number, str(number), each, "x.pth", differences(each, BASELINES, 0))
        for number, each in enumerate(checkpoints, start=1)
    )
    protocol = {"num_images": SIZE + 10, "num_calibration": 10}
    return Results(protocol, BASELINES, scored, course=course_of(scored, 0))


def test_cleaned_masks_are_compared_with_cleaned_baselines_alone() -> None:
    found = differences(model(0.0), BASELINES, 0)
    assert list(found) == list(PARTS)
    for name, scores in found.items():
        is_raw = name in ("fixed", "no_labels")
        best = "otsu_haematoxylin" if is_raw else "otsu_haematoxylin_cleaned"
        assert scores["iou"].than == best
        # The strongest by the score itself.
        assert scores["aji"].than == ("kmeans_hed" if is_raw else best)


def test_the_interval_is_that_of_the_paired_difference() -> None:
    ours = model(0.02, noise=0.05)
    found = differences(ours, BASELINES, seed=1)["fixed"]["iou"]
    values = np.array(ours.per_image["fixed"]["iou"]) - HARDNESS
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.low, abs=2e-3)
    assert found.high == pytest.approx(expected.high, abs=2e-3)
    # Hardness is the same for both and must not widen it.
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low < 0.2 * 2 * 1.96 * HARDNESS.std() / np.sqrt(SIZE) * 2


def lines(*checkpoints: MethodScores) -> dict[str, str]:
    said = summary(results(*checkpoints)).splitlines()
    return {line.split(": ")[0]: line for line in said}


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.03, "better than Otsu on haematoxylin"),
        (-0.03, "worse than Otsu on haematoxylin"),
    ],
)
def test_better_and_worse_are_said_with_the_interval(shift: float, words: str) -> None:
    scores = model(shift)
    difference = differences(scores, BASELINES, 0)["fixed"]["iou"]
    low, high = sorted((abs(difference.low or 0), abs(difference.high or 0)))
    expected = (
        f"{words} ({HARDNESS.mean():.3f}) by {abs(difference.mean):.3f} [{low:.3f}, {high:.3f}]"
    )
    assert expected in lines(scores)["- fixed channel"]


def test_level_with_is_said_only_where_the_interval_holds_zero() -> None:
    wide, narrow = model(0.002, noise=0.05), model(0.006, noise=0.005)
    assert "IoU" in (said := lines(wide)["- fixed channel"])
    assert f"level with Otsu on haematoxylin ({HARDNESS.mean():.3f}) [-" in said.split(";")[0]
    assert "better than Otsu on haematoxylin" in lines(narrow)["- no labels"]  # by 0.006
    assert "worse than cleaned Otsu" in lines(narrow)["- no labels, cleaned"]


def test_one_image_has_no_interval() -> None:
    one = {
        name: replace(
            each, per_image={p: {s: v[:1] for s, v in q.items()} for p, q in each.per_image.items()}
        )
        for name, each in (BASELINES | {"model": model(0.3)}).items()
    }
    ours = one.pop("model")
    found = differences(ours, one, 0)["fixed"]["iou"]
    assert (found.low, found.high, found.is_clear) == (None, None, False)
    scored = (CheckpointScores(1, "", ours, "", differences(ours, one, 0)),)
    said = summary(Results({"num_images": 2, "num_calibration": 1}, one, scored))
    assert "on a single image" in said
    assert "level with" not in said


def test_the_run_is_judged_by_its_best_and_its_last_checkpoint() -> None:
    good, same, fallen = model(0.05), model(0.05), model(0.0)
    found = course_of(results(model(-0.1), good, fallen).checkpoints, 0)["no_labels"]
    assert (found.best, found.last) == (200, 300)
    assert found.last_minus_best["iou"].mean == pytest.approx(-0.05, abs=0.01)
    assert found.last_minus_best["iou"].is_clear
    said = summary(results(model(-0.1), good, fallen))
    assert "- no labels: the best checkpoint is 200 (IoU" in said
    assert "the last, 300, is below it by 0.0" in said
    rising = summary(results(model(-0.1), good))
    assert "- oracle channel: the best checkpoint is the last, 200 (IoU" in rising
    best_first = sorted((good, same), key=lambda each: -np.mean(each.per_image["fixed"]["iou"]))
    assert "the last, 200, is level with it [" in summary(results(*best_first))
    assert "Along the run" not in summary(results(good))


def test_what_was_chosen_without_labels_is_said() -> None:
    assert (
        "Without labels channel 2 is taken (correlation with haematoxylin 0.77), from 0.31 on."
        in (summary(results(model(0.0))))
    )
