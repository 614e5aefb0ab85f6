"""Batches put together to slides, and slides shared out to ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adios_tme.data.by_slide import SlidePatches
from adios_tme.data.names import NameFacts
from adios_tme.inference.embed.plan import PlannedSlide, share_out
from adios_tme.inference.embed.work import Assembly, Embedded


def slide(name: str, num_patches: int) -> PlannedSlide:
    patches = SlidePatches(name, ((0, num_patches),))
    return PlannedSlide(patches, name, NameFacts(name), Path(name), "", "new")


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_every_slide_goes_to_one_rank_and_loads_are_even(num_ranks: int) -> None:
    slides = [slide(f"s{number}", length) for number, length in enumerate([9, 1, 4, 4, 7, 2, 9])]
    shares = share_out(slides, num_ranks)
    assert sorted(each.file_name for share in shares for each in share) == [
        each.file_name for each in slides
    ]
    assert all(share == [each for each in slides if each in share] for share in shares)
    loads = [sum(len(each.patches) for each in share) for share in shares]
    assert max(loads) - min(loads) <= 9


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("left_out", [(), (10,), (14,), (12, 13), (10, 11, 12, 13, 14, 15, 16)])
def test_slides_have_the_features_of_their_own_rows(
    batch_size: int, left_out: tuple[int, ...]
) -> None:
    lengths = [3, 1, 2, 1]
    rows = np.arange(10, 17)
    assembly = Assembly(lengths)
    found: list[tuple[int, Any, Any]] = []
    for first in range(0, len(rows), batch_size):
        planned = rows[first : first + batch_size]
        shown = planned[~np.isin(planned, left_out)]
        features = torch.from_numpy(shown).float()[:, None]
        found.extend(assembly.add(Embedded(planned, shown, features, None)))
    assert [number for number, _, _ in found] == [0, 1, 2, 3]
    ends = np.cumsum(lengths)
    for number, kept, features in found:
        own = rows[ends[number] - lengths[number] : ends[number]]
        expected = [row for row in own if row not in left_out]
        assert kept.tolist() == expected
        assert features[:, 0].tolist() == expected
