"""Parts that share no slide, and what is told where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adios_tme.benchmark.probe.samples import Samples, held_out_by, parts_of
from adios_tme.benchmark.probe.split import hold_out
from adios_tme.errors import DataError


def samples(
    labels: list[str], slides: list[str | None] | None = None, path: str = "classes"
) -> Samples[int]:
    names = tuple(f"{number}.png" for number in range(len(labels)))
    of = tuple(slides) if slides else (None,) * len(labels)
    return Samples(Path(path), list(range(len(labels))), names, tuple(labels), of, {})


@pytest.mark.parametrize("seed", range(5))
def test_slides_are_whole_and_classes_in_both_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slides = [f"s{number}" for number in rng.integers(0, 20, 300)]
    labels = [str(number) for number in rng.integers(0, 3, 300)]
    is_test = hold_out(labels, slides, 0.3, seed, Path("x"))
    parts = [{slides[row] for row in np.flatnonzero(rows)} for rows in (is_test, ~is_test)]
    assert not parts[0] & parts[1]
    for name in "012":
        rows = np.array([label == name for label in labels])
        assert is_test[rows].mean() == pytest.approx(0.3, abs=0.08)
    assert (is_test == hold_out(labels, slides, 0.3, seed, Path("x"))).all()


def test_another_seed_holds_out_others() -> None:
    labels = ["a", "b"] * 50
    found = [hold_out(labels, None, 0.3, seed, Path("x")) for seed in (0, 1)]
    assert [part.sum() for part in found] == [30, 30]
    assert (found[0] != found[1]).any()


def test_the_one_split_that_is_possible_is_found() -> None:
    labels = ["tumour"] * 8 + ["normal"] * 8
    slides = ["one"] * 5 + ["both"] * 3 + ["both"] * 2 + ["two"] * 6
    is_test = hold_out(labels, slides, 0.3, 0, Path("x"))
    held_out = {slides[row] for row in np.flatnonzero(is_test)}
    assert held_out == {"both"}


def test_a_class_on_one_slide_is_named() -> None:
    with pytest.raises(DataError) as raised:
        held_out_by(samples(["a", "a", "b", "b"], ["1", "2", "3", "3"]), "auto", 0.3, 0)
    assert str(raised.value) == (
        "classes: all of the class b is on one slide (3), which cannot be in both parts. "
        "Add a slide, give --test, or --split-by patch."
    )


def test_slides_that_do_not_divide_are_named() -> None:
    labels = ["a", "b", "b", "c", "c", "a"]
    slides: list[str | None] = ["1", "1", "2", "2", "3", "3"]
    with pytest.raises(DataError, match="its 3 slides cannot be divided so that each class is in"):
        held_out_by(samples(labels, slides), "slide", 0.3, 0)


def test_patches_are_held_out_and_told_where_names_tell_no_slide() -> None:
    parts = held_out_by(samples(["a", "a", "b", "b"], ["1", None, "3", "3"]), "auto", 0.3, 0)
    assert parts.split_by == "patch"
    assert parts.notes == (
        "Held out by patch: 1 of 4 names tell no slide. Patches of one slide may stand in both "
        "parts, which makes scores too good. Say how names tell it with --slide-pattern, or give "
        "--test.",
    )
    with pytest.raises(DataError, match=r"1\.png tells no slide, so that nothing can be held out"):
        held_out_by(samples(["a", "a", "b", "b"], ["1", None, "3", "3"]), "slide", 0.3, 0)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["a", "a"], r"^classes: holds only one class \(a\)\. Give a folder with two folders"),
        (["a", "a", "b"], r"^classes: the class b has one sample, and each part needs one\. Add"),
    ],
)
def test_too_few_classes_or_samples_are_named(labels: list[str], text: str) -> None:
    with pytest.raises(DataError, match=text):
        held_out_by(samples(labels), "auto", 0.3, 0)


def test_other_classes_in_the_test_part_are_named() -> None:
    with pytest.raises(DataError) as raised:
        parts_of(samples(["a", "a", "b", "b"]), samples(["a", "c"], path="test"))
    assert str(raised.value) == (
        "test: its classes are not those of classes: it lacks b and has c beside them. "
        "Give both parts the same folders."
    )


def test_slides_in_both_folders_are_told() -> None:
    train = samples(["a", "a", "b", "b"], ["1", "2", "3", "4"])
    parts = parts_of(train, samples(["a", "b"], ["2", "5"]))
    assert parts.notes == (
        "Slides stand in both parts (1, such as 2), which makes scores too good.",
    )
