"""What a run is worth: beside the strongest baselines, and from its best checkpoint to its last.

Like is compared with like: masks as they are with baselines as they are, cleaned ones with cleaned
ones, by the same protocol and on the same images.

Shape legend: I images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from adios_tme.benchmark.nuclei.aggregate import interval, resamples
from adios_tme.benchmark.nuclei.results import (
    CLEANED,
    PAIRED,
    SEGMENTATIONS,
    CheckpointScores,
    Course,
    Difference,
    Differences,
    MethodScores,
    Results,
)

NAMES = {
    "otsu_haematoxylin": "Otsu on haematoxylin",
    "otsu_haematoxylin_cleaned": "cleaned Otsu on haematoxylin",
    "otsu_macenko": "Otsu by Macenko",
    "otsu_macenko_cleaned": "cleaned Otsu by Macenko",
    "kmeans_hed": "k-means in HED",
    "everything_foreground": "all foreground",
}
SCORE_NAMES = {"iou": "IoU", "aji": "AJI", "pq": "PQ"}
#: Of these scores a sentence speaks; the file has the others as well.
TOLD = ("iou", "aji")
#: Scores that the sentence about a run compares; the file has the others as well.
PROTOCOLS = ("fixed", "no_labels", "oracle")
#: What a protocol is called in a sentence.
IN_WORDS = {
    "fixed": "fixed channel",
    "fixed_cleaned": "fixed channel, cleaned",
    "no_labels": "no labels",
    "no_labels_cleaned": "no labels, cleaned",
    "no_labels_by_area": "no labels, cleaned, on cleaned Otsu's area",
    "no_labels_with_stain": "no labels, mask and haematoxylin together",
    "oracle": "oracle channel",
}

PerImage = Mapping[str, tuple[float, ...]]


def rivals(baselines: Mapping[str, MethodScores], segmentation: str) -> dict[str, PerImage]:
    """Scores of each image by the baselines of the same kind: cleaned, or as they are.

    Args:
        baselines: All of them.
        segmentation: One of `SEGMENTATIONS`.
    """
    is_cleaned = segmentation not in ("fixed", "no_labels")
    protocol = "fixed" if segmentation.startswith("fixed") else "no_labels"
    return {
        name: scores.per_image[protocol]
        for name, scores in baselines.items()
        if name.endswith(CLEANED) == is_cleaned
    }


def differences(
    scores: MethodScores, baselines: Mapping[str, MethodScores], seed: int
) -> Differences:
    """From the strongest baseline of the same kind, by segmentation and score.

    Args:
        scores: Of a mask model.
        baselines: Scored on the same images.
        seed: Of the bootstrap.
    """
    found: Differences = {}
    for name in (name for name in SEGMENTATIONS if name in scores.per_image):
        ours, others = scores.per_image[name], rivals(baselines, name)
        strongest = {
            score: max(others, key=lambda rival: np.mean(others[rival][score])) for score in PAIRED
        }
        found[name] = {
            score: _difference(ours[score], others[rival][score], rival, seed)
            for score, rival in strongest.items()
        }
    return found


def course_of(checkpoints: Sequence[CheckpointScores], seed: int) -> dict[str, Course]:
    """The best checkpoint by the IoU of each protocol, and what the last one has of it."""
    if not checkpoints:
        return {}
    last = checkpoints[-1]
    found: dict[str, Course] = {}
    for name, ours in last.scores.per_image.items():
        means = [np.mean(each.scores.per_image[name]["iou"]) for each in checkpoints]
        best = checkpoints[int(np.argmax(means))]
        theirs = best.scores.per_image[name]
        than = f"iteration {best.iteration}"
        falls = {score: _difference(ours[score], theirs[score], than, seed) for score in PAIRED}
        found[name] = Course(best.iteration, last.iteration, falls)
    return found


def _difference(
    ours_I: Sequence[float], theirs_I: Sequence[float], than: str, seed: int
) -> Difference:
    """Paired: each image is drawn with both of its scores."""
    values_I = np.array(ours_I) - np.array(theirs_I)
    if len(values_I) < 2:
        return Difference(than, float(values_I.mean()), None, None)
    found = interval(values_I, resamples(len(values_I), seed))
    return Difference(than, float(values_I.mean()), found.low, found.high)


def summary(results: Results) -> str:
    """What the run is worth beside the strongest baselines, and which checkpoint to take."""
    return "\n".join(_sentences(results))


def _sentences(results: Results) -> Iterator[str]:
    newest = results.newest
    scores, blind = newest.scores, newest.scores.no_labels_choice
    num_test = results.protocol["num_images"] - results.protocol["num_calibration"]
    yield (
        f"Channel {scores.channel} of iteration {newest.iteration}, from "
        f"{scores.threshold:.2f} on, finds nuclei with IoU {scores.fixed_iou:.3f}. "
        f"A randomly chosen channel reaches {scores.random_channel_iou:.3f}. Without labels "
        f"channel {blind.channel} is taken (correlation with haematoxylin "
        f"{blind.correlation[blind.channel - 1]:.2f}), from {blind.threshold:.2f} on."
    )
    yield (
        "Beside the strongest baseline of the same kind (brackets: 95 % intervals of the paired "
        f"difference over {num_test} images):"
    )
    for name in (name for name in SEGMENTATIONS if name in newest.differences):
        yield f"- {IN_WORDS[name]}: {_beside_baselines(results, name)}"
    yield from _along_the_run(results)


def _beside_baselines(results: Results, segmentation: str) -> str:
    differences = results.newest.differences[segmentation]
    ours = results.newest.scores.per_image[segmentation]
    parts = []
    for score in TOLD:
        difference = differences[score]
        theirs = rivals(results.baselines, segmentation)[difference.than][score]
        other = f"{NAMES[difference.than]} ({np.mean(theirs):.3f})"
        verdict = _verdict(difference, "better than", "worse than", other)
        parts.append(f"{SCORE_NAMES[score]} {np.mean(ours[score]):.3f}, {verdict}")
    return "; ".join(parts) + "."


def _verdict(difference: Difference, above: str, below: str, other: str) -> str:
    """One is as good as the other only where the interval holds zero."""
    mean, low, high = difference.mean, difference.low, difference.high
    word = above if mean > 0 else below
    if low is None or high is None:
        return f"{word} {other} by {abs(mean):.3f} on a single image"
    if not difference.is_clear:
        return f"level with {other} [{low:+.3f}, {high:+.3f}]"
    least, most = sorted((abs(low), abs(high)))
    return f"{word} {other} by {abs(mean):.3f} [{least:.3f}, {most:.3f}]"


def _along_the_run(results: Results) -> Iterator[str]:
    """Which checkpoint is the best by each protocol, and whether the last one fell from it."""
    if len(results.checkpoints) < 2:
        return
    yield "Along the run, by the IoU of masks that are not cleaned:"
    by_iteration = {each.iteration: each.scores.per_image for each in results.checkpoints}
    for name in PROTOCOLS:
        course = results.course[name]
        best = np.mean(by_iteration[course.best][name]["iou"])
        said = f"the best checkpoint is the last, {course.last} (IoU {best:.3f})"
        if course.best != course.last:
            fall = _verdict(course.last_minus_best["iou"], "above", "below", "it")
            said = (
                f"the best checkpoint is {course.best} (IoU {best:.3f}), the last, {course.last}, "
                f"is {fall}"
            )
        yield f"- {IN_WORDS[name]}: {said}."
