"""Features of HDF5 files with labels of patches, of slides, and in their order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from adios_tme.benchmark.probe.feature_files import holds_features, read_features
from adios_tme.errors import ConfigError, DataError


def slide(path: Path, features: Any, coords: Any = None, encoder: str = "vit") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("features", data=np.array(features, dtype=np.float32))
        data.attrs["encoder"] = encoder
        if coords is not None:
            file.create_dataset("coords", data=np.array(coords, dtype=np.int64))
    return path


def labels(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Two slides in a folder of a folder, as TRIDENT has them."""
    folder = tmp_path / "features"
    slide(folder / "20x_224px" / "s1.h5", [[1, 1], [3, 5]], [[0, 0], [224, 0]])
    slide(folder / "20x_224px" / "s2.h5", [[7, 8]], [[448, 0]])
    return folder


def test_labels_of_patches(features: Path, tmp_path: Path) -> None:
    csv = labels(tmp_path, "slide,x,y,label\ns1,224,0,tumour\ns2,448,0,normal\ns1,0,0,normal\n")
    found = read_features(features, csv)
    rows = [feature.tolist() for feature in found.items]
    assert list(zip(rows, found.labels, found.slides, strict=True)) == [
        ([3, 5], "tumour", "s1"),
        ([1, 1], "normal", "s1"),
        ([7, 8], "normal", "s2"),
    ]
    assert found.names[0] == "s1 at 224, 0"
    assert (found.facts["encoder"], found.facts["kind"]) == ("vit", "features")


def test_labels_of_slides_are_for_the_mean_of_their_features(
    features: Path, tmp_path: Path
) -> None:
    found = read_features(features, labels(tmp_path, "label,slide\nluad,s1\n"))
    assert [feature.tolist() for feature in found.items] == [[2, 3]]
    assert (found.names, found.labels, found.slides) == (("s1",), ("luad",), ("s1",))
    assert found.notes == ("1 of 2 files have no label and are not used.",)


def test_labels_in_the_order_of_one_file(features: Path, tmp_path: Path) -> None:
    found = read_features(features / "20x_224px" / "s1.h5", labels(tmp_path, "label\na\nb\n"))
    assert (found.labels, found.slides) == (("a", "b"), (None, None))
    assert found.items[1].tolist() == [3, 5]


@pytest.mark.parametrize(
    "text",
    [
        "slide,x,y,label\ns1,224,0,a;b\n",
        "\ufeffslide;x;y;label\r\ns1;224;0;a;\r\n",
        "slide\tx\ty\tlabel\ns1\t224\t0\ta\n",
        "slide,x,y,label\ns1,224.0,0.0,a\n",
    ],
)
def test_labels_as_spreadsheets_save_them(text: str, features: Path, tmp_path: Path) -> None:
    plain = read_features(features, labels(tmp_path, "slide,x,y,label\ns1,224,0,a\n"))
    found = read_features(features, labels(tmp_path, text))
    assert found.names == plain.names
    assert found.labels in (("a",), ("a;b",))


def test_other_labels_have_other_facts(features: Path, tmp_path: Path) -> None:
    digests = {
        read_features(features, labels(tmp_path, f"slide,label\ns1,{name}\n")).facts["files"]
        for name in ("a", "b")
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide\ns1\n", r"labels\.csv: has slide\. Give the columns label, slide"),
        ("slide,x,label\ns1,1,a\n", r"has slide, x, label\. Give the columns"),
        ("", r"has no columns\. Give the columns"),
        ("slide,label\ns1,\n", r"line 2 has no label"),
        ("slide,x,y,label\ns1,one,0,a\n", r"is no CSV of labels \(could not convert"),
        ("slide,label\ns9,a\n", r"names none of the slides in .*features \(such as s1\)"),
        ("slide,x,y,label\ns1,0.5,0,a\n", r"0\.5 is no whole number of pixels"),
        ("slide,x,y,label\ns1,5,0,a\n", r"s1\.h5: has no feature at \(5, 0\)"),
        ("slide,x,y,label\ns1,0,0,a\ns1,0,0,b\n", r"s1\.h5: a place has two labels"),
        ("slide,label\ns1,a\ns1,b\ns1,a\n", r"s1\.h5: has 2 features and 3 labels without"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    text: str, message: str, features: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_features(features, labels(tmp_path, text))


def test_files_that_do_not_fit_are_named(features: Path, tmp_path: Path) -> None:
    csv = labels(tmp_path, "slide,label\ns1,a\ns2,b\n")
    for damage, text in (
        (
            {"features": [[1, 2, 3]]},
            r"of another encoder than those before it \(vit, 3 wide; first",
        ),
        (
            {"features": [[1, 2]], "encoder": "uni"},
            r"of another encoder .* \(uni, 2 wide; first vit",
        ),
        ({"features": [[1, float("nan")]]}, r"of shape \(1, 2\), expected finite numbers"),
        ({"features": [1, 2]}, r"of shape \(2,\), expected finite"),
    ):
        slide(features / "20x_224px" / "s2.h5", **damage)
        with pytest.raises(DataError, match=rf"s2\.h5: its features are {text}"):
            read_features(features, csv)
    (features / "20x_224px" / "s2.h5").write_bytes(b"x")
    with pytest.raises(DataError, match=r"s2\.h5: holds no features that can be read"):
        read_features(features, csv)
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read \(No such file"):
        read_features(features, tmp_path / "nowhere.csv")


def test_a_missing_package_is_one_message(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"h5py is not installed.*'adios-tme\[hdf5\]'"):
        read_features(features, labels(tmp_path, "slide,label\ns1,a\n"))


def test_a_folder_of_images_holds_no_features(features: Path, tmp_path: Path) -> None:
    assert holds_features(features)
    assert holds_features(features / "20x_224px" / "s1.h5")
    assert not holds_features(tmp_path / "nowhere")
    (tmp_path / "images").mkdir()
    assert not holds_features(tmp_path / "images")
