"""Images for pictures."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from adios_tme.config.slides import SlideTiles
from adios_tme.data.gallery import read_gallery
from adios_tme.data.left_out import LeftOut
from adios_tme.errors import ConfigError, DataError
from adios_tme.files import PNG_METADATA
from tests.factories import make_archive, png
from tests.slides import make_slide, on_glass, stained


def images_of(
    source: Path, num_images: int, img_size: int, left_out: LeftOut | None = None
) -> Tensor:
    account = LeftOut() if left_out is None else left_out
    return read_gallery(source, num_images, img_size, account).images


def test_from_a_folder_an_archive_and_a_file(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(png(20, seed=number))
    make_archive(tmp_path / "a.zip", num_patches=6)
    assert images_of(tmp_path, 3, 16).shape == (3, 3, 16, 16)
    assert images_of(tmp_path / "a.zip", 4, 16).shape == (4, 3, 16, 16)
    assert images_of(tmp_path / "0.png", 4, 16).shape == (1, 3, 16, 16)


def test_capitals_never_matter_and_other_files_are_counted(tmp_path: Path) -> None:
    for name in ("a.PNG", "._a.png", ".DS_Store", "b.txt"):
        (tmp_path / name).write_bytes(png(20))
    with zipfile.ZipFile(tmp_path / "SLIDE.ZIP", "w") as archive:
        for name in ("s/", "s/a.Png", "__MACOSX/s/._a.Png", "s/readme.md"):
            archive.writestr(name, b"" if name.endswith("/") else png(20))
    for source, count, junk in ((tmp_path, 2, 3), (tmp_path / "SLIDE.ZIP", 1, 1)):
        account = LeftOut()
        assert images_of(source, 3, 16, account).shape == (count, 3, 16, 16)
        assert account.count("not_an_image") == count
        assert account.count("junk") == junk


def test_own_pictures_are_told_apart_by_a_few_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(png(20))
        Image.new("RGB", (20, 20)).save(tmp_path / f"grid_{number}.png", pnginfo=drawn())
    opened, open_file = [], os.open

    def count(path: Path, flags: int, **where: Any) -> int:
        if not where:  # those that are read are opened below their folder
            opened.append(path)
        return open_file(path, flags, **where)

    monkeypatch.setattr("os.open", count)
    monkeypatch.setattr("adios_tme.data.folder.MOST_OPENED", 20)
    account = LeftOut()
    assert images_of(tmp_path, 60, 16, account).shape[0] == 30
    assert account.count("own") == 30
    assert len(opened) < 30 + 30  # all of our own, and some of the others


def drawn() -> PngInfo:
    """The metadata of a picture of ours."""
    metadata = PngInfo()
    for key, value in PNG_METADATA.items():
        metadata.add_text(key, value)
    return metadata


def test_an_archive_without_an_image_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("._a.png", png(20))
    with pytest.raises(DataError, match=r"a\.zip: holds no image"):
        images_of(tmp_path / "a.zip", 3, 16)


def test_pictures_are_read_by_the_rule_for_pixels(tmp_path: Path) -> None:
    clear = np.zeros((16, 16, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "a.png")
    Image.fromarray(np.full((16, 16), 90 * 257, np.uint16)).save(tmp_path / "b.png")
    images = images_of(tmp_path, 2, 16)
    assert [int(image.min()) for image in images] == [255, 90]


def test_what_cannot_be_shown_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no zip archive, no tar and no image"):
        images_of(tmp_path, 3, 16)
    with pytest.raises(DataError, match="does not exist"):
        images_of(tmp_path / "no", 3, 16)
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x\.png"):
        images_of(tmp_path, 3, 16)
    (tmp_path / "x.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x\.zip"):
        images_of(tmp_path / "x.zip", 3, 16)


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read \(is a link or no regular file"):
        images_of(tmp_path, 3, 16)


def test_a_gallery_knows_slides_and_classes(tmp_path: Path) -> None:
    for name in ("tumour", "stroma"):
        make_archive(tmp_path / name / "slide_a.zip", num_patches=2)
        (tmp_path / name / "TCGA-A2-A0CM-01Z-00-DX1").mkdir()
        (tmp_path / name / "TCGA-A2-A0CM-01Z-00-DX1" / "x0_y0.png").write_bytes(png(20))
    account = LeftOut()
    (tmp_path / "notes.txt").touch()
    gallery = read_gallery(tmp_path, 99, 16, account)
    assert gallery.images.shape == (6, 3, 16, 16)
    assert sorted(set(gallery.classes)) == ["stroma", "tumour"]
    assert len(set(gallery.slides)) == 4
    assert "stroma/slide_a" in gallery.slides
    assert account.count("not_an_image") == 1
    assert read_gallery(tmp_path, 3, 16, LeftOut()).images.shape[0] == 3
    alone = read_gallery(tmp_path / "tumour" / "slide_a.zip", 5, 16, LeftOut())
    assert (alone.images.shape[0], set(alone.slides)) == (2, {"slide_a"})


def test_a_gallery_of_nothing_but_our_own_pictures_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "masks.png", pnginfo=drawn())
    with pytest.raises(DataError, match=r"holds no image\. Give a folder of images"):
        read_gallery(tmp_path, 3, 16, LeftOut())


def test_tiles_of_slides_stand_for_images(tmp_path: Path) -> None:
    pixels = stained(128, 192, seed=3)
    make_slide(tmp_path / "tumour" / "a.tif", pixels, mpp=0.5)
    make_slide(tmp_path / "b.tif", stained(64, 64), mpp=0.5)
    make_slide(tmp_path / "glass.tif", on_glass(256, 256, (slice(0), slice(0))), mpp=0.5)
    (tmp_path / "beside.png").write_bytes(png(20))
    tiles = SlideTiles(mpp=0.5, patch_size_px=64)
    account = LeftOut()
    gallery = read_gallery(tmp_path, 99, 64, account, tiles=tiles)
    assert gallery.slides == ("b", *("tumour/a",) * 6)
    assert gallery.classes == ("b", *("tumour",) * 6)
    assert account.count("no_tile") == 1
    assert account.count("not_a_slide") == 1  # the folder with the image beside them
    of_a = pixels.reshape(2, 64, 3, 64, 3).transpose(0, 2, 4, 1, 3).reshape(6, 3, 64, 64)
    np.testing.assert_array_equal(gallery.images[1:].numpy(), of_a)

    few = read_gallery(tmp_path, 2, 64, LeftOut(), tiles=tiles)  # of two of the slides
    assert few.slides == ("b", "tumour/a")
    alone = read_gallery(tmp_path / "tumour" / "a.tif", 3, 32, LeftOut(), tiles=tiles)
    assert (alone.images.shape, set(alone.slides)) == ((3, 3, 32, 32), {"a"})


def test_slides_that_cannot_be_shown_are_named(tmp_path: Path) -> None:
    make_slide(tmp_path / "a.tif", on_glass(256, 256, (slice(0), slice(0))), mpp=0.5)
    with pytest.raises(DataError, match=r"no tile of tissue is found in 1 of 1 slides"):
        read_gallery(tmp_path, 3, 16, LeftOut(), tiles=SlideTiles(mpp=0.5, patch_size_px=64))
    (tmp_path / "a.svs").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"a\.svs: is a whole slide, which is read at a stated"):
        read_gallery(tmp_path / "a.svs", 3, 16, LeftOut())
    with pytest.raises(DataError, match="does not exist"):
        read_gallery(tmp_path / "no", 3, 16, LeftOut(), tiles=SlideTiles(mpp=0.5))
