"""Patches slide by slide, and what names state of a slide."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from adios_tme.config.data import PatchSelection
from adios_tme.data.by_slide import (
    SlidePatches,
    coordinates_of,
    digest_of,
    facts_of,
    file_names,
    patches_by_slide,
)
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import build_index
from adios_tme.data.names import NameFacts
from adios_tme.errors import DataError
from tests.factories import make_archive, make_dataset, png


def indexed(
    folder: Path, members: dict[str, list[str]], pattern: str | None = None
) -> DatasetIndex:
    """An index of archives by the names of their members."""
    for archive_name, names in members.items():
        (folder / archive_name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / archive_name, "w") as archive:
            for number, name in enumerate(names):
                archive.writestr(name, png(8, number))
    return build_index(folder, PatchSelection(all=True, name_pattern=pattern))


@pytest.mark.parametrize(
    ("members", "pattern", "slides"),
    [
        ({"a/s.zip": ["p_x0_y0.png"] * 1, "b/s.zip": ["q_x0_y0.png"]}, None, ["a/s", "b/s"]),
        ({"a.zip": ["S1/1_x0_y0.png", "S2/1_x0_y0.png"]}, None, ["a/S1", "a/S2"]),
        ({"a.zip": ["A_0_0.png"], "b.zip": ["B_0_0.png", "A_1_0.png"]}, r"(?P<slide>\w)_", "AB"),
        ({"a.zip": ["S1_0_0_64_64.png", "S2_0_0_64_64.png"]}, None, ["a/S1", "a/S2"]),
    ],
)
def test_slides_are_those_that_the_index_counts(
    tmp_path: Path, members: dict[str, list[str]], pattern: str | None, slides: list[str]
) -> None:
    index = indexed(tmp_path, members, pattern)
    found = patches_by_slide(index)
    assert [slide.name for slide in found] == list(slides)
    assert {slide.name: len(slide) for slide in found} == dict(index.patches_per_slide())
    for slide in found:
        assert {patch.slide for patch in index.patches(slide.rows)} == {slide.name}
    assert sorted(np.concatenate([slide.rows for slide in found])) == list(range(len(index)))


def test_neighbours_are_one_span(tmp_path: Path) -> None:
    index = indexed(tmp_path, {"a.zip": [f"S1_{x}_0_64_64.png" for x in range(5)]})
    assert patches_by_slide(index) == [SlidePatches("a/S1", ((0, 5),))]


def test_facts_are_those_on_which_names_agree(tmp_path: Path) -> None:
    index = indexed(
        tmp_path / "one", {"20x_256px_32px_overlap/s.zip": ["p_x0_y0.png", "p_x256_y0.png"]}
    )
    (slide,) = patches_by_slide(index)
    expected = NameFacts(slide.name, None, None, 256, 20, overlap=32)
    assert facts_of(index, slide) == expected
    index = indexed(tmp_path / "two", {"s.zip": ["a_256_x0_y0.png", "a_512_x0_y0.png"]})
    (slide,) = patches_by_slide(index)
    assert facts_of(index, slide) == NameFacts("s")


def test_folders_above_the_data_state_nothing(tmp_path: Path) -> None:
    index = indexed(tmp_path / "40x_512px_0px_overlap" / "data", {"s.zip": ["p_x0_y0.png"]})
    assert facts_of(index, patches_by_slide(index)[0]) == NameFacts("s")


def test_coordinates_are_those_of_the_names(tmp_path: Path) -> None:
    index = indexed(tmp_path, {"s.zip": ["p_x5_y-7.png", "p_x40000000000_y2.png", "tile.png"]})
    expected = [[40_000_000_000, 2], [5, -7]]
    assert coordinates_of(index, np.array([1, 0])).tolist() == expected
    with pytest.raises(DataError) as found:
        coordinates_of(index, np.array([0, 2]))
    assert str(found.value) == (
        f"{tmp_path / 's.zip'}: tile.png: the name states no x and y in pixels. "
        "Say where they stand with --name-pattern, or leave them out with --no-coords."
    )


def test_the_digest_tells_other_patches(tmp_path: Path) -> None:
    def digests() -> list[str]:
        index = build_index(tmp_path)
        return [digest_of(index, slide) for slide in patches_by_slide(index)]

    make_dataset(tmp_path)
    before = digests()
    assert len(set(before)) == 3
    make_archive(tmp_path / "slide_001.zip", num_patches=4, seed=8)  # the same names
    after = digests()
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    ("slide", "file"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/abs/a.b", "abs/a.b"),
        ("a/./b", "a/b"),
        ("..", "slide"),
    ],
)
def test_files_never_lie_outside_their_folder(slide: str, file: str) -> None:
    assert file_names([SlidePatches(slide, ((0, 1),))]) == {slide: file}


def test_two_slides_never_share_a_file() -> None:
    slides = [SlidePatches(name, ((0, 1),)) for name in ("a/b", "a/../b", "/a/b")]
    with pytest.raises(DataError, match=r"a/b: two slides would be written to this one file"):
        file_names(slides)
