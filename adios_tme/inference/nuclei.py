"""From a binary mask to single nuclei.

Shape legend: H x W pixels.
"""

from __future__ import annotations

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

Labels = NDArray[np.int32]


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
    height = ndimage.gaussian_filter(depth(mask_HW), SMOOTHING_PX)
    highest = ndimage.maximum_filter(height, size=2 * PEAK_DISTANCE_PX + 1)
    is_peak = (height == highest) & mask_HW
    # A small object beside a large one is not the highest around, and is a nucleus all the same.
    without = np.ones(num_objects + 1, dtype=bool)
    without[0] = False
    without[connected[is_peak]] = False
    is_peak.flat[_highest_of_each(height, connected, without)] = True
    peaks, _ = ndimage.label(is_peak, structure=np.ones((3, 3)))
    return _flood(height, peaks, connected, num_objects)


def depth(mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel of a mask to the nearest one outside, where the image's border is too.

    As `scipy.ndimage.distance_transform_edt`, which works out the background's distances as well.
    """
    nearest_2HW = ndimage.distance_transform_edt(
        np.pad(mask_HW, 1), return_distances=False, return_indices=True
    )[:, 1:-1, 1:-1]
    places = np.nonzero(mask_HW)
    # Of the padded image, where pixels lie one further down and right.
    down, right = (
        of_pixel + 1 - nearest_HW[places]
        for of_pixel, nearest_HW in zip(places, nearest_2HW, strict=True)
    )
    depth_HW = np.zeros(mask_HW.shape, dtype=np.float32)
    depth_HW[places] = np.sqrt(down**2 + right**2)
    return depth_HW


def _flood(
    height_HW: NDArray[np.float32], peaks_HW: Labels, connected_HW: Labels, num_objects: int
) -> Labels:
    """Give each pixel of an object to one of its peaks; with a single one there is no choice."""
    of_object, of_peak = (some[peaks_HW > 0] for some in (connected_HW, peaks_HW))
    first = np.full(num_objects + 1, np.iinfo(np.int32).max, dtype=np.int32)
    last = np.zeros(num_objects + 1, dtype=np.int32)
    np.minimum.at(first, of_object, of_peak)
    np.maximum.at(last, of_object, of_peak)
    last[0] = 0
    has_choice = first < last
    labels: Labels = np.where(has_choice, 0, last)[connected_HW]
    if has_choice.any():
        among = has_choice[connected_HW]
        labels += watershed(-height_HW, peaks_HW * among, mask=among).astype(np.int32)
    return labels


def _highest_of_each(
    height_HW: NDArray[np.float32], connected_HW: Labels, wanted: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Where in the flat image each of some objects is highest.

    Args:
        height_HW: What is compared.
        connected_HW: Ids of objects.
        wanted: Which of the ids.
    """
    places = np.flatnonzero(wanted[connected_HW])
    ids = connected_HW.flat[places]
    in_order = np.lexsort((height_HW.flat[places], ids))
    ids = ids[in_order]
    is_last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
    highest: NDArray[np.intp] = places[in_order[is_last]]
    return highest
