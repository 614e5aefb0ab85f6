"""TRIDENT's and CLAM's files of coordinates."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from adios_tme.data.slides.coordinates import (
    coordinate_file,
    read_coordinates,
    write_coordinates,
)
from adios_tme.data.slides.reader import Level
from adios_tme.errors import ConfigError, DataError

LEVELS = (Level(4000, 3000, 1.0), Level(1000, 750, 4.0))
PLACES = np.array([[0, 0], [512, 1024]])


def h5(path: Path, places: Any = PLACES, name: str = "coords", **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=places).attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"patch_size": 256, "patch_size_level0": 512, "overlap": 0}, 512),  # TRIDENT
        ({"patch_size": 256, "patch_level": 0}, 256),  # CLAM
        ({"patch_size": 256, "patch_level": 1}, 1024),
        ({"patch_size": 512, "patch_level": 0, "custom_downsample": 2}, 512),
    ],
)
def test_the_side_in_level_0_follows_from_what_is_stated(
    tmp_path: Path, attributes: dict[str, Any], side: int
) -> None:
    found = read_coordinates(h5(tmp_path / "a.h5", **attributes), LEVELS)
    np.testing.assert_array_equal(found.places, PLACES)
    assert found.side == side


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "below" / "a_patches.h5"
    write_coordinates(
        path, PLACES, slide="a", slide_size=(4000, 3000), side=512, size_px=256, overlap=0
    )
    found = read_coordinates(path, LEVELS)
    np.testing.assert_array_equal(found.places, PLACES)
    assert found.side == 512
    with h5py.File(path) as file:  # what TRIDENT looks for
        attributes = dict(file["coords"].attrs)
        assert file["coords"].dtype == np.int64
    assert attributes["patch_size"] == 256
    assert attributes["patch_size_level0"] == 512
    assert (attributes["level0_width"], attributes["level0_height"]) == (4000, 3000)


def test_files_are_found_by_either_name(tmp_path: Path) -> None:
    (tmp_path / "patches").mkdir()
    clam = h5(tmp_path / "patches" / "a.h5")
    trident = h5(tmp_path / "b_patches.h5")
    assert coordinate_file(tmp_path, Path("slides/a.svs")) == clam
    assert coordinate_file(tmp_path, Path("slides/b.svs")) == trident
    with pytest.raises(DataError, match=r"c.svs: has no coordinates in .*Expected c_patches.h5"):
        coordinate_file(tmp_path, Path("slides/c.svs"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "features"}, "the dataset coords cannot be read"),
        ({"places": np.zeros((2, 3))}, r"coords has the shape \(2, 3\) and not \(N, 2\)"),
        ({"patch_size": 256, "patch_level": 5}, "states level 5, and the slide has 2"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    sided = {"patch_size_level0": 512} if "patch_size" not in content else {}
    with pytest.raises(DataError, match=message):
        read_coordinates(h5(tmp_path / "a.h5", **(sided | content)), LEVELS)


def test_a_file_without_a_side_and_one_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="states neither patch_size_level0"):
        read_coordinates(h5(tmp_path / "a.h5"), LEVELS)
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"b\.h5: the dataset coords cannot be read"):
        read_coordinates(tmp_path / "b.h5", LEVELS)


def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install 'adios-tme\[hdf5\]'"):
        read_coordinates(tmp_path / "a.h5", LEVELS)
