"""AJI and PQ against their formulas written out nucleus by nucleus."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.instance_scores import compare
from adios_tme.benchmark.nuclei.pixel_scores import score_pixels

Labels = NDArray[np.int32]


def nuclei(labels: Labels) -> list[NDArray[np.bool_]]:
    return [labels == number for number in np.unique(labels) if number]


def aji_by_loops(truth: Labels, found: Labels) -> float:
    """Kumar et al. 2017, algorithm 1."""
    true_nuclei, found_nuclei = nuclei(truth), nuclei(found)
    above, below, used = 0, 0, set()
    for true in true_nuclei:
        ratios = [(true & other).sum() / (true | other).sum() for other in found_nuclei]
        if not ratios or max(ratios) == 0:
            below += true.sum()
            continue
        best = int(np.argmax(ratios))
        above += (true & found_nuclei[best]).sum()
        below += (true | found_nuclei[best]).sum()
        used.add(best)
    below += sum(other.sum() for number, other in enumerate(found_nuclei) if number not in used)
    return float(above / below)


def pq_by_loops(truth: Labels, found: Labels) -> tuple[float, float]:
    """Kirillov et al. 2019, equation 2, as detection and segmentation quality."""
    true_nuclei, found_nuclei = nuclei(truth), nuclei(found)
    ious = [
        iou
        for true in true_nuclei
        for other in found_nuclei
        if (iou := (true & other).sum() / (true | other).sum()) > 0.5
    ]
    missed, invented = len(true_nuclei) - len(ious), len(found_nuclei) - len(ious)
    dq = len(ious) / (len(ious) + missed / 2 + invented / 2)
    return dq, float(np.mean(ious)) if ious else 0.0


def random_map(rng: np.random.Generator, shift: int) -> Labels:
    """Overlapping squares with ids that have gaps."""
    labels = np.zeros((40, 40), dtype=np.int32)
    for number in range(rng.integers(1, 15)):
        row, column, side = *rng.integers(0, 34, 2), rng.integers(2, 9)
        labels[row : row + side, column : column + side] = 3 * number + shift
    return labels


@pytest.mark.parametrize("seed", range(25))
def test_random_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_map(rng, 1)
    found = np.roll(truth, rng.integers(0, 3, 2), (0, 1)) if seed % 2 else random_map(rng, 2)
    scores = compare(truth, found)
    dq, sq = pq_by_loops(truth, found)
    assert scores.aji == pytest.approx(aji_by_loops(truth, found))
    assert (scores.dq, scores.sq, scores.pq) == pytest.approx((dq, sq, dq * sq))


def test_pixel_scores_by_their_formulas() -> None:
    rng = np.random.default_rng(0)
    mask, truth = rng.random((30, 30)), rng.random((30, 30)) < 0.4
    scores = score_pixels(mask[None].astype(np.float32), truth)
    found = mask.astype(np.float32) >= 0.5
    true, false, missed = (found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()
    at_half = 9
    assert scores.iou[0, at_half] == pytest.approx(true / (true + false + missed))
    assert scores.dice[0, at_half] == pytest.approx(2 * true / (2 * true + false + missed))
    assert scores.precision[0, at_half] == pytest.approx(true / (true + false))
    assert scores.recall[0, at_half] == pytest.approx(true / (true + missed))


def test_auprc_is_the_area_under_precision_and_recall() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((40, 40)) < 0.3
    steps = rng.integers(0, 256, (40, 40)) // (1 + truth * 0) + truth * 40
    mask = np.minimum(steps, 255) / 256
    order = sorted(set(mask.ravel()), reverse=True)
    area, before = 0.0, 0.0
    for threshold in order:
        found = mask >= threshold
        recall = (found & truth).sum() / truth.sum()
        area += (recall - before) * (found & truth).sum() / found.sum()
        before = recall
    assert score_pixels(mask[None], truth).auprc[0] == pytest.approx(area)
