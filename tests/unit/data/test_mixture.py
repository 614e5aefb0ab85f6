"""Several roots as one training set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from adios_tme.config.data import DataConfig, DataRoot
from adios_tme.config.load import build
from adios_tme.data.index_builder import build_index, open_indexes, open_or_build
from adios_tme.data.loader import PatchLoader
from adios_tme.data.mixture import PatchMixture
from adios_tme.data.order import sample_rows
from adios_tme.errors import ConfigError
from tests.factories import make_archive


def mix(folder: Path, *weights: float, sizes: tuple[int, ...] = (20, 10)) -> PatchMixture:
    for number, size in enumerate(sizes):
        make_archive(folder / str(number) / "a.zip", num_patches=size, size_px=4, seed=number)
    indexes = [build_index(folder / str(number)) for number in range(len(sizes))]
    return PatchMixture(indexes, weights)


def test_without_weights_each_patch_comes_once(tmp_path: Path) -> None:
    both = mix(tmp_path)
    assert (len(both), both.epoch_length) == (30, 30)
    rows = both.rows(np.arange(60), seed=1).tolist()
    assert sorted(rows[:30]) == sorted(rows[30:]) == list(range(30))
    assert rows == sample_rows(np.arange(60), 30, seed=1).tolist()


@pytest.mark.parametrize("weight", [0.3, 0.05, 1.5, 4])
def test_a_weight_says_how_often_a_patch_is_shown(weight: float, tmp_path: Path) -> None:
    both = mix(tmp_path, 1, weight)
    share = round(10 * weight) or 1
    assert both.epoch_length == 20 + share
    for epoch in range(4):
        samples = np.arange(epoch * both.epoch_length, (epoch + 1) * both.epoch_length)
        rows = both.rows(samples, seed=1)
        assert sorted(rows[rows < 20]) == list(range(20))
        assert (rows >= 20).sum() == share
    many = both.rows(np.arange(100 * both.epoch_length), seed=1)
    counts = Counter(many[many >= 20].tolist())
    # Each comes once before any comes twice, so that no two counts differ by more than one.
    assert set(counts) == set(range(20, 30))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_roots_are_mixed_within_an_epoch(tmp_path: Path) -> None:
    both = mix(tmp_path, 1, 0.5, sizes=(200, 200))
    rows = both.rows(np.arange(both.epoch_length), seed=3)
    parts = [(part >= 200).mean() for part in np.array_split(rows, 5)]
    assert 0.15 < min(parts) < max(parts) < 0.55  # a third on average


@pytest.mark.parametrize("block", [1, 4])
def test_a_sample_is_a_pure_function_of_its_number(block: int, tmp_path: Path) -> None:
    both = mix(tmp_path, 1, 0.7)
    whole = both.rows(np.arange(200), seed=5, block=block)
    picked = np.array([199, 3, 77])
    assert both.rows(picked, seed=5, block=block).tolist() == whole[picked].tolist()


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_a_weighted_run_goes_on_where_it_stopped(num_ranks: int, tmp_path: Path) -> None:
    both = mix(tmp_path, 1, 0.3)

    def rows(rank: int, first_sample: int, count: int) -> list[int]:
        loader = PatchLoader(
            both,
            img_size=8,
            batch_size=2,
            rank=rank,
            num_ranks=num_ranks,
            seed=5,
            first_sample=first_sample,
        )
        batches = iter(loader)
        return [row for _ in range(count) for row in next(batches).rows.tolist()]

    for rank in range(num_ranks):
        assert rows(rank, 0, 20)[10:] == rows(rank, 5 * 2 * num_ranks, 15)[:30]


def test_rows_lead_to_their_root(tmp_path: Path) -> None:
    both = mix(tmp_path)
    assert both.patch(19).archive.path.parent.name == "0"
    assert both.patch(20).member.name == "patch_000_448_x0_y0.png"
    assert both.patch(20).archive.path.parent.name == "1"
    assert both.damage(25, "gone").archive == str(tmp_path / "1" / "a.zip")
    asked = [29, 3, 20, 3]
    assert both.patches(asked) == [both.patch(row) for row in asked]
    for row in (30, -1):
        with pytest.raises(IndexError, match=f"row {row} of 30 patches"):
            both.patch(row)


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [("a", "a", 1), ("a:0.3", "a", 0.3), ("a:b", "a:b", 1), ("a:b:2", "a:b", 2), ("s3:", "s3:", 1)],
)
def test_a_root_is_a_path_and_a_weight(text: str, path: str, weight: float) -> None:
    assert DataRoot.parse(text) == (Path(path), weight)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a:0"], "a has the weight 0.0. Give one above zero."),
        (["a:-1"], "weight -1.0"),
        (["a:nan"], "weight nan"),
        (["a", "a:2"], "given twice"),
    ],
)
def test_unsound_roots_are_refused(paths: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(DataConfig, {"data_path": paths})


def test_a_run_opens_what_was_built(tmp_path: Path) -> None:
    mix(tmp_path)
    config = build(DataConfig, {"data_path": [str(tmp_path / "0"), f"{tmp_path / '1'}:0.5"]})
    reports = open_or_build(config, tmp_path / "out")
    assert [len(report.index) for report in reports] == [20, 10]
    assert open_indexes(config, tmp_path / "out").epoch_length == 25
