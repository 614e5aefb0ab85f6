"""Microns per pixel: from what a slide states, or a table, and never an implausible one."""

from __future__ import annotations

from pathlib import Path

import pytest

from adios_tme.data.slides.scale import read_mpp_csv, scale_of
from adios_tme.errors import ConfigError, DataError

INCH = {"tiff.ResolutionUnit": "inch"}


@pytest.mark.parametrize(
    ("properties", "mpp"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, 0.25),
        ({"openslide.mpp-x": "0.24", "openslide.mpp-y": "0.26", "aperio.MPP": "9"}, 0.25),
        ({"openslide.mpp-x": "0.5"}, 0.5),
        ({"aperio.MPP": "0.499"}, 0.499),
        ({"aperio.MPP": "none", "tiff.XResolution": "50800", **INCH}, 0.5),
        ({"tiff.XResolution": "40000", "tiff.ResolutionUnit": "centimeter"}, 0.25),
        ({"dicom.PixelSpacing": "0.0005\\0.0005"}, 0.5),
    ],
)
def test_it_is_taken_from_where_it_stands(properties: dict[str, str], mpp: float) -> None:
    assert scale_of("a.svs", properties, {}).mpp == pytest.approx(mpp)


@pytest.mark.parametrize(("down", "is_uneven"), [("0.251", False), ("0.3", True)])
def test_pixels_that_are_not_square_are_noticed(down: str, is_uneven: bool) -> None:
    stated = {"openslide.mpp-x": "0.25", "openslide.mpp-y": down}
    assert scale_of("a.svs", stated, {}).is_uneven is is_uneven


@pytest.mark.parametrize(
    "text",
    ["wsi,mpp\nb.svs,0.23\nslides/a,0.46\n", "\ufeffwsi;mpp\r\nb.svs;0,23\r\nslides/a;0,46\r\n"],
)
def test_the_table_wins_over_the_slide(text: str, tmp_path: Path) -> None:
    table = tmp_path / "mpp.csv"
    table.write_text(text)
    stated = read_mpp_csv(table)
    for name, mpp in (("a.svs", 0.46), ("b.svs", 0.23), ("c.svs", 0.25)):
        assert scale_of(name, {"openslide.mpp-x": "0.25"}, stated).mpp == mpp


def test_none_and_an_implausible_one_name_the_slide() -> None:
    with pytest.raises(DataError) as none:
        scale_of("a.svs", {"tiff.XResolution": "1", "tiff.ResolutionUnit": "none"}, {})
    assert str(none.value) == (
        "a.svs: does not state its microns per pixel. "
        "Give them by --mpp-csv, a table with the columns wsi and mpp."
    )
    with pytest.raises(DataError) as implausible:
        scale_of("a.svs", {"openslide.mpp-x": "352.77", "openslide.mpp-y": "352.77"}, {})
    assert str(implausible.value) == (
        "a.svs: openslide.mpp-x states 352.8 microns per pixel, which no slide has "
        "(0.05 to 20). Give the true value by --mpp-csv."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("slide,scale\na,0.5\n", "has no columns wsi and mpp with a line below. Add them."),
        ("wsi,mpp\n", "has no columns wsi and mpp with a line below. Add them."),
        ("wsi,mpp\na,0.5\nb,500\n", r"'500' is not a plausible number.*line 3"),
        ("wsi,mpp\na,\n", r"'' is not a plausible number.*line 2"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "mpp.csv"
    table.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_mpp_csv(table)
    with pytest.raises(ConfigError, match=r"none\.csv cannot be read"):
        read_mpp_csv(tmp_path / "none.csv")
