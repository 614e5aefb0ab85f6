"""What ``adios-tme index`` says of a data set beyond its index."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adios_tme.data.corrupt import CorruptPatch
from adios_tme.data.index_builder import build_index
from adios_tme.data.inspection import (
    measure_index,
    read_sample,
    sample,
    scale_in_name,
    verify_index,
)
from adios_tme.errors import ConfigError, DataError
from adios_tme.viz.contact_sheet import draw_contact_sheet
from tests.factories import make_archive, make_dataset, png
from tests.hostile import BAD, PATCHES


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_damaged_patch_is_found(num_workers: int, tmp_path: Path) -> None:
    make_archive(tmp_path / "good.zip", num_patches=150, size_px=4)
    PATCHES["wrong CRC"].build(tmp_path)
    PATCHES["a symbolic link in a tar"].build(tmp_path)
    seen: list[tuple[int, int]] = []
    found = verify_index(
        build_index(tmp_path), num_workers, lambda done, total: seen.append((done, total))
    )
    assert found.num_patches == 158
    assert found.damaged == (
        CorruptPatch("slide.tar", BAD, "is a link or no regular file"),
        CorruptPatch("slide.zip", BAD, "wrong CRC"),
    )
    assert found.reasons() == {"is a link or no regular file": 1, "wrong CRC": 1}
    assert seen[-1] == (158, 158)


def test_mean_and_std_are_those_of_all_pixels(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_archives=2, num_patches=3)
    index = build_index(tmp_path)
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(png(32, seed=archive * 1000 + number)))) / 255
            for archive in range(2)
            for number in range(3)
        ]
    ).reshape(-1, 3)
    stats = measure_index(index, num_samples=100, num_workers=2)
    np.testing.assert_allclose(stats["mean"], pixels.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(stats["std"], pixels.std(axis=0), atol=1e-4)
    assert stats["sizes"] == {"32 x 32": 6}
    assert stats["patches_per_slide"] == {"least": 3, "median": 3, "most": 3}
    assert (stats["num_sampled"], stats["num_damaged"], stats["num_slides"]) == (6, 0, 2)


def test_damage_in_the_sample_is_counted(tmp_path: Path) -> None:
    PATCHES["no image"].build(tmp_path)
    index = build_index(tmp_path)
    stats = measure_index(index, num_samples=100, num_workers=1)
    assert (stats["num_sampled"], stats["num_damaged"]) == (3, 1)
    assert len(read_sample(index, 100)) == 3


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("p_448_.png", b"text")
    with pytest.raises(DataError, match="none of 1 patches can be read"):
        measure_index(build_index(tmp_path), num_samples=5, num_workers=1)


def test_a_sample_holds_no_patch_twice(tmp_path: Path) -> None:
    index = build_index(make_archive(tmp_path / "a.zip", num_patches=50, size_px=1).parent)
    rows = sample(index, 20).tolist()
    assert len(set(rows)) == 20
    assert rows == sorted(rows)
    assert sample(index, 500).tolist() == list(range(50))


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("slide_40x_448_x448_y0.png", ["40x"]),
        ("TCGA-20X.svs/12_x100_y200.png", ["20x"]),
        ("a_2.5x_.png", ["2.5x"]),
        ("a_mpp0.25_448_.png", ["0.25 mpp"]),
        ("a_0.5mpp_.png", ["0.5 mpp"]),
        ("patch_001_448_x100_y200.png", []),
        ("12x34.png", []),
        ("112x_224y.png", []),
        ("20x_40y.png", []),
    ],
)
def test_scale_is_read_from_names(name: str, scale: list[str]) -> None:
    assert scale_in_name(name) == scale


def test_a_contact_sheet_shows_every_patch(tmp_path: Path) -> None:
    images = [np.full((448, 448, 3), shade, np.uint8) for shade in (10, 60, 110, 160, 210)]
    draw_contact_sheet(images, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 164 + 4, 3 * 164 + 4, 3)
    assert set(np.unique(sheet)) == {10, 60, 110, 160, 210, 255}
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        draw_contact_sheet(images, tmp_path / "sheet.jpg")
    with pytest.raises(DataError, match="no readable patch"):
        draw_contact_sheet([], tmp_path / "sheet.png")
