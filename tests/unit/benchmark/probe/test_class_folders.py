"""Folders of classes: images, archives, slides, and what is no image."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from adios_tme.benchmark.probe.class_folders import ImageReader, read_class_folders
from adios_tme.config.slides import SlideTiles
from adios_tme.errors import DataError
from adios_tme.files import PNG_METADATA
from tests.factories import make_archive, png
from tests.slides import make_slide, stained


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(8, seed))
    return path


def test_images_archives_and_folders_of_a_class_are_found(tmp_path: Path) -> None:
    image(tmp_path / "a" / "TCGA-AB-1234-01Z-00-DX1_x0_y0.png", seed=7)
    make_archive(tmp_path / "a" / "slide_1.zip", num_patches=2, size_px=8, seed=3)
    make_archive(tmp_path / "b" / "slide_1.zip", num_patches=1, size_px=8)
    image(tmp_path / "b" / "slide_2" / "0_x0_y0.png")
    found = read_class_folders(tmp_path)
    assert list(zip(found.names, found.labels, found.slides, strict=True)) == [
        ("a/TCGA-AB-1234-01Z-00-DX1_x0_y0.png", "a", "TCGA-AB-1234-01Z-00-DX1"),
        ("a/slide_1/patch_000_448_x0_y0.png", "a", "slide_1"),
        ("a/slide_1/patch_001_448_x448_y0.png", "a", "slide_1"),
        ("b/slide_1/patch_000_448_x0_y0.png", "b", "slide_1"),
        ("b/slide_2/0_x0_y0.png", "b", "slide_2"),
    ]
    assert found.classes == ("a", "b")
    assert found.notes == ()
    reader = ImageReader(found)
    for row, seed in ((0, 7), (1, 3000), (2, 3001), (3, 0)):
        expected = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        assert (reader(row, None) == expected).all()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, [None, None]),
        (r"tumor_\d+", ["tumor_004", "tumor_064"]),
        (r"tumor_(?P<slide>\d+)", ["004", "064"]),
    ],
)
def test_slides_are_told_by_a_pattern(
    pattern: str | None, expected: list[str | None], tmp_path: Path
) -> None:
    image(tmp_path / "a" / "tumor_004_38958_122192.png")
    image(tmp_path / "b" / "tumor_064_38675_112420.png")
    assert list(read_class_folders(tmp_path, pattern).slides) == expected


def test_a_pattern_that_misses_an_image_is_named(tmp_path: Path) -> None:
    image(tmp_path / "a" / "tumor_1.png")
    image(tmp_path / "b" / "normal_1.png")
    with pytest.raises(DataError) as raised:
        read_class_folders(tmp_path, "tumor_.")
    assert str(raised.value) == (
        f"{tmp_path}: --slide-pattern 'tumor_.' finds no slide in normal_1.png. "
        f"Give one that matches every image, such as '^[^_]+_[^_]+'."
    )


def test_what_is_no_image_of_a_class_is_left_out_and_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / name / "1.png")
    image(tmp_path / "1.png")
    image(tmp_path / "scores" / "curve.png")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    own = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    text = PngInfo()
    for key, value in PNG_METADATA.items():
        text.add_text(key, value)
    own.save(tmp_path / "b" / "curve.png", pnginfo=text)
    found = read_class_folders(tmp_path, own=[tmp_path / "scores"])
    assert found.names == ("a/1.png", "b/1.png")
    assert found.notes == ("1 images lie beside the folders of the classes and are not used.",)
    reasons = [(each["reason"], each["examples"]) for each in found.left_out.as_json()]
    assert reasons == [("own", ["b/curve.png"]), ("not_an_image", ["a/notes.txt"])]


def test_other_content_has_other_facts(tmp_path: Path) -> None:
    path = image(tmp_path / "set" / "a" / "1.png")
    image(tmp_path / "set" / "b" / "1.png")
    first = read_class_folders(tmp_path / "set").facts
    assert read_class_folders(tmp_path / "set").facts == first
    os.utime(path, ns=(1, 1))
    assert read_class_folders(tmp_path / "set").facts != first


def test_folders_without_classes_or_images_are_named(tmp_path: Path) -> None:
    advice = "Give a folder that holds a folder of images for each class."
    with pytest.raises(
        DataError, match=re.escape(f"cannot be listed (No such file or directory). {advice}")
    ):
        read_class_folders(tmp_path / "nowhere")
    image(tmp_path / "1.png")
    with pytest.raises(
        DataError, match=re.escape(f"{tmp_path}: holds no folder, so no class. {advice}")
    ):
        read_class_folders(tmp_path)
    image(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b: holds no zip archive, no tar and no image"):
        read_class_folders(tmp_path)
    make_archive(tmp_path / "b" / "slide.zip", num_patches=0)
    with pytest.raises(DataError, match=r"b: holds no image\. Add images of this class, or"):
        read_class_folders(tmp_path)
    (tmp_path / "b" / "slide.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"slide\.zip: .* cannot be read"):
        read_class_folders(tmp_path)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    image(tmp_path / "a" / "1.png").write_bytes(b"x")
    image(tmp_path / "b" / "1.png")
    reader = ImageReader(read_class_folders(tmp_path))
    shutil.rmtree(tmp_path / "b")
    for row, text in ((0, r"a/1\.png cannot be read \(not a PNG"), (1, r"b/1\.png cannot be read")):
        with pytest.raises(DataError, match=rf"{text}.*Mend or remove it\."):
            reader(row, None)


def test_tiles_of_slides_are_the_images_of_a_class(tmp_path: Path) -> None:
    pixels = {name: stained(64, 128, seed) for seed, name in enumerate("abc")}
    for name, place in (("a", "tumor"), ("b", "tumor/lab"), ("c", "normal")):
        make_slide(tmp_path / place / f"{name}.tif", pixels[name], mpp=0.5)
    tiles = SlideTiles(mpp=0.5, patch_size_px=64)
    found = read_class_folders(tmp_path, tiles=tiles)
    assert found.labels == ("normal",) * 2 + ("tumor",) * 4
    assert found.slides == ("c", "c", "a", "a", "lab/b", "lab/b")
    assert found.names[3] == "tumor/a/a_64_x64_y0_mpp0.5"
    np.testing.assert_array_equal(ImageReader(found)(3, None), pixels["a"][:, 64:])
    assert read_class_folders(tmp_path, tiles=tiles).facts == found.facts
    make_slide(tmp_path / "tumor" / "a.tif", pixels["c"], mpp=0.5)
    assert read_class_folders(tmp_path, tiles=tiles).facts != found.facts

    make_slide(tmp_path / "normal" / "c.tif", np.full((64, 128, 3), 244, np.uint8), mpp=0.5)
    with pytest.raises(DataError, match="normal: holds no tile of tissue"):
        read_class_folders(tmp_path, tiles=tiles)
