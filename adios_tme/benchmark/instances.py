"""From a binary mask to nuclei, and how two label maps compare nucleus by nucleus.

Shape legend: H x W pixels, T true and P predicted nuclei.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

#: Smoothing of the distance map before its peaks are sought, in pixels.
SMOOTHING_PX = 1.0
#: Two peaks stand at least about this far apart, in pixels.
PEAK_DISTANCE_PX = 5
#: Objects below this many pixels are no nuclei.
SMALLEST_PX = 12
#: IoU above which a true and a predicted nucleus match; above one half matches are unique.
MATCH_IOU = 0.5

Labels = NDArray[np.int32]


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


def split_nuclei(mask_HW: NDArray[np.bool_]) -> Labels:
    """Split a binary mask into nuclei by a watershed on the distance to its border.

    Returns:
        (H, W) ids from 1 on, 0 for the background; objects under a dozen pixels are dropped.
    """
    connected, num_objects = ndimage.label(mask_HW)
    sizes = np.bincount(connected.ravel(), minlength=num_objects + 1)
    if num_objects:
        mask_HW = mask_HW & (sizes >= SMALLEST_PX)[connected]
        connected = connected * mask_HW
    if not mask_HW.any():
        return np.zeros(mask_HW.shape, dtype=np.int32)
    distance = ndimage.distance_transform_edt(np.pad(mask_HW, 1))[1:-1, 1:-1].astype(np.float32)
    height = ndimage.gaussian_filter(distance, SMOOTHING_PX)
    highest = ndimage.maximum_filter(height, size=2 * PEAK_DISTANCE_PX + 1)
    is_peak = (height == highest) & mask_HW
    # A small object beside a large one is not the highest around, and is a nucleus all the same.
    without = np.setdiff1d(connected, np.append(connected[is_peak], 0))
    for place in ndimage.maximum_position(height, connected, without):
        is_peak[place] = True
    peaks, _ = ndimage.label(is_peak, structure=np.ones((3, 3)))
    labels: Labels = watershed(-height, peaks, mask=mask_HW).astype(np.int32)
    return labels


def compare(truth: Labels, predicted: Labels) -> InstanceScores:
    """Score predicted nuclei against true ones.

    Args:
        truth: (H, W) ids, 0 for the background; ids need not be consecutive.
        predicted: The same of the prediction.

    Returns:
        All ones where both are empty, all zeros where one is.
    """
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


def _consecutive(labels: Labels) -> tuple[NDArray[np.int64], Labels]:
    """The ids in a label map, and the map with each id replaced by its place among them."""
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
