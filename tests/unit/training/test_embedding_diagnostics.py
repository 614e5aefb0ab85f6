"""Facts about embeddings against NumPy, pair by pair, and the warnings that follow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adios_tme.distributed.world import process_group
from adios_tme.run_folder.health import COLLAPSE_LINES, CollapseWarnings
from adios_tme.training.embedding_diagnostics import (
    EmbeddingDiagnostics,
    measure_embeddings,
    rankme,
)
from tests.spawn import run_on_ranks

Array = NDArray[np.float64]


def some_embeddings() -> tuple[Array, Array]:
    """Of 8 clean views and of 2 masked views of each, some 3 dimensions of 5."""
    rng = np.random.default_rng(3)
    clean = rng.normal(size=(8, 5)) * [3, 2, 1, 0.1, 0.01] + [1, 0, 0, 0, 0]
    return clean, clean + rng.normal(size=(2, 8, 5)) * 0.3


def measure(clean: Array, masked: Array) -> EmbeddingDiagnostics:
    return measure_embeddings(torch.from_numpy(clean).float(), torch.from_numpy(masked).float())


def values(found: EmbeddingDiagnostics) -> dict[str, float]:
    return {name: value.item() for name, value in vars(found).items()}


def by_loops(clean: Array, masked: Array) -> dict[str, float]:
    num_images, width = clean.shape
    unit = np.array([row / np.linalg.norm(row) for row in clean])
    distances = [
        ((row - view[place] / np.linalg.norm(view[place])) ** 2).sum()
        for view in masked
        for place, row in enumerate(unit)
    ]
    pairs = [
        math.exp(-2 * ((unit[one] - unit[other]) ** 2).sum())
        for one in range(num_images)
        for other in range(one)
    ]
    singular = np.sqrt(np.linalg.eigvalsh(clean.T @ clean).clip(min=0))
    shares = singular / singular.sum() + 1e-7
    return {
        "embedding_std": math.sqrt(width) * unit.std(axis=0).mean(),
        "rankme": math.exp(-sum(share * math.log(share) for share in shares)),
        "alignment": float(np.mean(distances)),
        "uniformity": math.log(sum(pairs) / len(pairs)),
    }


def test_facts_are_those_of_the_papers() -> None:
    clean, masked = some_embeddings()
    assert values(measure(clean, masked)) == pytest.approx(by_loops(clean, masked), rel=1e-4)


def test_facts_at_the_ends() -> None:
    axes = np.concatenate([np.eye(4), -np.eye(4)])
    spread = values(measure(axes, axes[None]))
    assert spread["embedding_std"] == pytest.approx(1.0)
    assert spread["rankme"] == pytest.approx(4.0, rel=1e-4)
    assert spread["alignment"] == pytest.approx(0.0)
    one = values(measure(np.ones((8, 4)), np.ones((2, 8, 4))))
    assert one == pytest.approx(
        {"embedding_std": 0.0, "rankme": 1.0, "alignment": 0.0, "uniformity": 0.0}, abs=1e-4
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    embeddings = torch.randn(4, 3)
    embeddings[1, 2] = bad
    assert not rankme(embeddings).isfinite()


def on_own_rank(clean: Array, masked: Array) -> dict[str, float]:
    with process_group("cpu") as world:
        own = slice(4 * world.rank, 4 * world.rank + 4)
        return values(measure(clean[own], masked[:, own]))


def test_images_of_every_rank_count() -> None:
    clean, masked = some_embeddings()
    for found in run_on_ranks(on_own_rank, 2, clean, masked):
        assert found == pytest.approx(by_loops(clean, masked), rel=1e-4)


def line(**facts: Any) -> dict[str, Any]:
    return {"iteration": 100, "embedding_std": 0.5, "rankme": 20.0} | facts


def say(watch: CollapseWarnings, times: int = COLLAPSE_LINES, **facts: Any) -> list[str]:
    return [text for _ in range(times) for text in watch.warnings(line(**facts))]


def test_a_collapse_is_told_once_in_words_and_again_when_it_has_passed() -> None:
    watch = CollapseWarnings(first_iteration=50)
    assert say(watch, iteration=10, embedding_std=0.0, rankme=1.0) == []
    assert say(watch, times=2 * COLLAPSE_LINES) == []
    (text,) = say(watch, times=3 * COLLAPSE_LINES, embedding_std=0.004, rankme=1.0)
    assert text == (
        "The student has collapsed: the embeddings of different images are nearly the same "
        "(embedding_std 0.004, where 1 is spread evenly, over 5 log lines). Try a lower "
        "--lr, a longer --warmup-iterations, weaker augmentation or more images per update; if "
        "the objective is not simclr, compare with it."
    )
    assert say(watch) == []
    (text,) = say(watch, times=3 * COLLAPSE_LINES, rankme=1.02)
    assert text.startswith(
        "The student has collapsed to few dimensions: its embeddings use 1.0 of them (rankme over "
        "5 log lines). "
    )
    assert say(watch, embedding_std=None, rankme=None) == []
