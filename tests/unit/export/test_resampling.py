"""Resizing by matrices, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adios_tme.export.resampling import Kernel, cubic, resample, resampling_matrix, triangle

SIZES = [
    ((448, 301), (224, 224)),
    ((100, 37), (224, 224)),
    ((224, 224), (1000, 777)),
    ((2048, 1536), (96, 96)),
    ((64, 5), (5, 64)),
    ((1, 2), (16, 16)),
    ((40, 40), (1, 3)),
]


@pytest.mark.parametrize(("kernel", "mode"), [(cubic, "bicubic"), (triangle, "bilinear")])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_torch_gives_the_same(
    kernel: Kernel, mode: str, old: tuple[int, int], new: tuple[int, int]
) -> None:
    images = torch.rand(2, 3, *old)
    expected = F.interpolate(images, new, mode=mode, antialias=True)
    torch.testing.assert_close(resample(images, *new, kernel), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", [cubic, triangle])
def test_a_size_that_stays_changes_no_bit(kernel: Kernel) -> None:
    images = torch.rand(1, 3, 33, 70)
    assert torch.equal(resample(images, 33, 70, kernel), images)


def test_weights_by_hand() -> None:
    halved = resampling_matrix(4, 2, triangle)
    torch.testing.assert_close(halved * 7, torch.tensor([[3.0, 3, 1, 0], [0, 1, 3, 3]]))
    doubled = resampling_matrix(2, 4, triangle)
    assert doubled.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
