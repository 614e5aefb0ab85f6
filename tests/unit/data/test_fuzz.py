"""Noise, and good files with holes, through everything that reads a file."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import TARGETS
from tests.fuzz_seeds import SEEDS

pytestmark = pytest.mark.timeout(120)

CASES = [(target, number) for target, seeds in SEEDS.items() for number in range(len(seeds))]


@cache
def seed(target: str, number: int) -> bytes:
    return SEEDS[target][number]()


@pytest.mark.parametrize("target", list(TARGETS))
@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=600))
def test_noise(target: str, content: bytes) -> None:
    TARGETS[target](content)


@pytest.mark.parametrize(("target", "number"), CASES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_good_file_with_holes(target: str, number: int, data: st.DataObject) -> None:
    content = bytearray(seed(target, number))
    for _ in range(data.draw(st.integers(1, 4), label="holes")):
        at = data.draw(st.integers(0, len(content) - 1), label="at")
        hole = data.draw(
            st.sampled_from([b"\0", b"\xff" * 4, b"\x7f", b"\xff" * 8, b"PK\1\2", b""])
        )
        content[at : at + max(1, len(hole))] = hole
    keep = data.draw(st.integers(len(content) // 2, 2 * len(content)), label="keep")
    TARGETS[target](bytes(content[:keep]))
