"""From a mask to single nuclei: the parts that are ours against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from adios_tme.inference.nuclei import depth


@pytest.mark.parametrize("level", [0.3, 0.5, 0.6])
def test_the_depth_is_the_distance_to_the_next_pixel_outside(level: float) -> None:
    blobs = ndimage.gaussian_filter(np.random.default_rng(0).random((41, 57)), 2)
    mask = blobs > np.quantile(blobs, level)
    assert mask[0].any()  # the border of the image is outside too
    expected = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    np.testing.assert_array_equal(depth(mask), expected.astype(np.float32))
