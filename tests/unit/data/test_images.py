"""Images for pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.data.images import load_images
from adios_tme.errors import DataError
from tests.factories import make_archive, png


def test_from_a_folder_an_archive_and_a_file(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(png(20, seed=number))
    make_archive(tmp_path / "a.zip", num_patches=6)
    assert load_images(tmp_path, 3, 16).shape == (3, 3, 16, 16)
    assert load_images(tmp_path / "a.zip", 4, 16).shape == (4, 3, 16, 16)
    assert load_images(tmp_path / "0.png", 4, 16).shape == (1, 3, 16, 16)


def test_what_cannot_be_shown_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        load_images(tmp_path, 3, 16)
    with pytest.raises(DataError, match="does not exist"):
        load_images(tmp_path / "no", 3, 16)
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x\.png"):
        load_images(tmp_path, 3, 16)
    (tmp_path / "x.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x\.zip"):
        load_images(tmp_path / "x.zip", 3, 16)


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png: cannot be read \(No such file or directory\)"):
        load_images(tmp_path, 3, 16)
