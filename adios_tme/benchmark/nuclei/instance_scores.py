"""How two label maps compare nucleus by nucleus.

Shape legend: H x W pixels, T true and P predicted nuclei.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adios_tme.inference.nuclei import Labels

#: IoU above which a true and a predicted nucleus match; above one half matches are unique.
MATCH_IOU = 0.5


class InstanceScores(NamedTuple):
    """Agreement of two label maps, nucleus by nucleus."""

    aji: float
    """Aggregated Jaccard index (Kumar et al. 2017)."""
    dq: float
    """Detection quality: F1 of nuclei matched above one half IoU."""
    sq: float
    """Segmentation quality: mean IoU of the matched ones."""
    pq: float
    """Panoptic quality, their product (Kirillov et al. 2019)."""


def compare(truth: Labels, predicted: Labels) -> InstanceScores:
    """Score predicted nuclei against true ones.

    Args:
        truth: (H, W) ids, 0 for the background; ids need not be consecutive. Numbers below 0 are
            void: nothing is counted there, and a predicted nucleus that touches no true one and
            lies there by more than half counts nowhere (Kirillov et al. 2019, section 4).
        predicted: Ids of the prediction.

    Returns:
        All ones where both are empty, all zeros where one is.
    """
    truth, predicted = _without_void(truth, predicted)
    true_ids, truth = _consecutive(truth)
    found_ids, predicted = _consecutive(predicted)
    shape = (len(true_ids), len(found_ids))
    joint = np.bincount((truth * shape[1] + predicted).ravel(), minlength=shape[0] * shape[1])
    joint = joint.reshape(shape)
    true_sizes, found_sizes = joint.sum(axis=1), joint.sum(axis=0)
    true_kept, found_kept = true_ids != 0, found_ids != 0
    overlap_TP = joint[true_kept][:, found_kept]
    true_sizes, found_sizes = true_sizes[true_kept], found_sizes[found_kept]
    if not overlap_TP.size:
        both_empty = float(not len(true_sizes) and not len(found_sizes))
        return InstanceScores(both_empty, both_empty, both_empty, both_empty)
    union_TP = true_sizes[:, None] + found_sizes[None] - overlap_TP
    iou_TP = overlap_TP / union_TP
    matched = iou_TP > MATCH_IOU
    num_matched = int(matched.sum())
    dq = num_matched / ((len(true_sizes) + len(found_sizes)) / 2)
    sq = float(iou_TP[matched].mean()) if num_matched else 0.0
    return InstanceScores(_aji(overlap_TP, union_TP, iou_TP, found_sizes), dq, sq, dq * sq)


def _without_void(truth: Labels, predicted: Labels) -> tuple[Labels, Labels]:
    """Background in both label maps where the truth is void."""
    void = truth < 0
    if not void.any():
        return truth, predicted
    found_ids, places = _consecutive(predicted)
    sizes, in_void, in_nuclei = (
        np.bincount(some.ravel(), minlength=len(found_ids))
        for some in (places, places[void], places[truth > 0])
    )
    counted = (2 * in_void <= sizes) | (in_nuclei > 0)
    return np.where(void, 0, truth), np.where(~void & counted[places], predicted, 0)


def _consecutive(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The ids in a label map, and the map with each id replaced by its place among them."""
    if labels.max(initial=0) > labels.size:  # a table of all ids would be larger than the map
        ids, inverse = np.unique(labels, return_inverse=True)
        return ids.astype(np.int64), inverse.reshape(labels.shape).astype(np.int32)
    present = np.zeros(int(labels.max(initial=0)) + 1, dtype=bool)
    present[labels] = True
    places = np.cumsum(present, dtype=np.int32) - 1
    return np.flatnonzero(present), places[labels]


def _aji(
    overlap_TP: NDArray[np.int64],
    union_TP: NDArray[np.int64],
    iou_TP: NDArray[np.float64],
    found_sizes: NDArray[np.int64],
) -> float:
    """Each true nucleus with its best partner, then everything that nobody was paired with."""
    partner = iou_TP.argmax(axis=1)
    rows = np.arange(len(partner))
    shared, covered = overlap_TP[rows, partner], union_TP[rows, partner]
    alone = np.ones(len(found_sizes), dtype=bool)
    # A true nucleus that nothing touches has no partner: its union is itself.
    paired = shared > 0
    alone[partner[paired]] = False
    true_sizes = union_TP[:, 0] - found_sizes[0] + overlap_TP[:, 0]
    below = covered[paired].sum() + true_sizes[~paired].sum() + found_sizes[alone].sum()
    return float(shared.sum() / below)
