"""The file of a slide, as other tools read it and as it is read back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from adios_tme.errors import ConfigError, DataError
from adios_tme.inference.embed.features_file import (
    Attribute,
    SlideFeatures,
    check_format,
    read_attributes,
    read_features,
    write_features,
)

SUFFIXES = (".h5", ".safetensors")
FEATURES = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
COORDS = np.array([[0, 448], [2**40, 1], [-7, 5]])
ATTRIBUTES: dict[str, Attribute] = {
    "name": "S1",
    "savetodir": "/out",
    "encoder": "run",
    "patch_size": 256,
    "target_magnification": 20,
    "mpp": 0.5,
    "patches_digest": "ab",
    "num_left_out": 1,
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / "a" / f"S1.v2{suffix}"
    write_features(path, SlideFeatures(FEATURES.astype(dtype), COORDS, None, ATTRIBUTES))
    found = read_features(path)
    assert found.features.dtype == dtype
    np.testing.assert_array_equal(found.features, FEATURES.astype(dtype))
    assert found.coords is not None
    assert found.coords.dtype == np.int64
    np.testing.assert_array_equal(found.coords, COORDS)
    assert found.names is None
    assert found.attributes == ATTRIBUTES == read_attributes(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_stand_where_there_are_no_coordinates(tmp_path: Path, suffix: str) -> None:
    path, names = tmp_path / f"S{suffix}", ("a/b.png", "ü.png", "\udcff.png")
    write_features(path, SlideFeatures(FEATURES, None, names, ATTRIBUTES))
    found = read_features(path)
    assert found.coords is None
    assert found.names is not None
    assert found.names[:2] == names[:2]
    assert len(found.names) == 3
    assert found.attributes == ATTRIBUTES


def test_the_hdf5_is_laid_out_as_tridents(tmp_path: Path) -> None:
    write_features(tmp_path / "S1.h5", SlideFeatures(FEATURES, COORDS, None, ATTRIBUTES))
    with h5py.File(tmp_path / "S1.h5") as file:
        assert set(file) == {"features", "coords"}
        assert file["features"].shape == (3, 5)
        assert file["features"].dtype == np.float32
        assert file["coords"].dtype == np.int64
        assert dict(file["coords"].attrs) == {
            "name": "S1",
            "savetodir": "/out",
            "patch_size": 256,
            "target_magnification": 20,
            "mpp": 0.5,
        }
        assert file["features"].attrs["name"] == "S1"
        assert file["features"].attrs["savetodir"] == "/out"
        assert file["features"].attrs["encoder"] == "run"


def test_the_safetensors_need_no_code_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "S1.safetensors"
    write_features(path, SlideFeatures(FEATURES, COORDS, None, ATTRIBUTES))
    tensors = load_file(path)
    np.testing.assert_array_equal(tensors["features"], FEATURES)
    np.testing.assert_array_equal(tensors["coords"], COORDS)


def test_a_file_that_trident_wrote_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "S.h5", "w") as file:
        file.create_dataset("features", data=FEATURES)
        coords = file.create_dataset("coords", data=COORDS.astype(np.int32))
        coords.attrs["patch_size_level0"] = np.int64(512)
    found = read_features(tmp_path / "S.h5")
    assert found.attributes == {"patch_size_level0": 512}
    assert found.coords is not None
    assert found.coords.dtype == np.int64


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"no features", b"\x89HDF\r\n\x1a\n" + bytes(80), None])
def test_what_is_no_such_file_is_one_message(
    tmp_path: Path, suffix: str, content: bytes | None
) -> None:
    path = tmp_path / f"S{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="Give a file of adios-tme embed or of TRIDENT"):
        read_features(path)
    assert read_attributes(path) == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_was_cut_short_is_one_message(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"S{suffix}"
    write_features(path, SlideFeatures(FEATURES, COORDS, None, ATTRIBUTES))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"S\.\w+: holds no features, or cannot be read"):
        read_features(path)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_features(tmp_path / "S.h5", SlideFeatures(FEATURES, COORDS[:2]))
    with pytest.raises(DataError):
        read_features(tmp_path / "S.h5")


def test_h5py_is_asked_for_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    check_format("safetensors")
    with pytest.raises(ConfigError) as found:
        check_format("hdf5")
    assert str(found.value) == (
        "format=hdf5 needs h5py. Install it with pip install 'adios-tme[hdf5]', "
        "or use --format safetensors."
    )


def test_after_a_failure_the_file_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "S.h5"
    write_features(path, SlideFeatures(FEATURES, COORDS, None, ATTRIBUTES))
    before = path.read_bytes()
    unknown: dict[str, Any] = {"name": json}
    with pytest.raises(TypeError):
        write_features(path, SlideFeatures(FEATURES, None, None, unknown))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
