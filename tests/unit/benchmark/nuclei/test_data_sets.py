"""Releases of PanNuke and MoNuSeg, real and made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adios_tme.benchmark.nuclei.monuseg import MoNuSeg, draw_outlines
from adios_tme.benchmark.nuclei.pannuke import PanNuke, merge_classes
from adios_tme.errors import DataError


def make_pannuke(
    folder: Path, layout: str = "Fold {}", num_images: int = 3, dtype: str = "float64"
) -> Path:
    for fold in (1, 2):
        base = folder / layout.format(fold)
        nested = layout != "fold{}"
        images, masks = (
            (base / kind / f"fold{fold}" if nested else base) for kind in ("images", "masks")
        )
        for place in (images, masks):
            place.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((num_images, 8, 8, 6), dtype=dtype)
        mask[:, :2, :2, 0], mask[:, 4:6, 4:6, 3], mask[:, 0, 7, 4] = 1, 1, 7
        np.save(images / "images.npy", np.full((num_images, 8, 8, 3), 40 * fold, dtype=dtype))
        np.save(masks / "masks.npy", mask)
        np.save(images / "types.npy", np.array(["Breast", "Colon", "Breast"][:num_images]))
    return folder


@pytest.mark.parametrize("layout", ["Fold {}", "Fold{}", "Fold_{}", "fold{}"])
@pytest.mark.parametrize("dtype", ["float64", "uint16", "int32"])
def test_every_layout_of_pannuke(layout: str, dtype: str, tmp_path: Path) -> None:
    data = PanNuke(make_pannuke(tmp_path, layout, dtype=dtype))
    assert len(data) == 6
    assert data.parts == [layout.format(1)] * 3 + [layout.format(2)] * 3
    image = data[4]
    assert image.tissue == "Colon"
    assert image.pixels.dtype == np.uint8
    assert image.pixels.max() == 80
    assert len(np.unique(image.labels)) == 4  # equal ids of two classes are two nuclei


def test_classes_merge_to_ids_of_their_own() -> None:
    mask = np.zeros((2, 3, 6))
    mask[0, 0, 0], mask[0, 1, 1], mask[0, 2, 1], mask[1, 0, 5] = 2, 1, 2, 1
    assert merge_classes(mask).tolist() == [[2, 3, 4], [0, 0, 0]]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda p: (p / "Fold 2/masks/fold2/masks.npy").unlink(), "has no masks.npy"),
        (lambda p: np.save(p / "Fold 1/images/fold1/images.npy", np.zeros((3, 8, 8))), "expected"),
        (
            lambda p: np.save(p / "Fold 1/masks/fold1/masks.npy", np.zeros((3, 8, 8, 2))),
            "a channel",
        ),
        (lambda p: np.save(p / "Fold 1/images/fold1/types.npy", np.array(["x"])), "names"),
        (lambda p: (p / "Fold 1/masks/fold1/masks.npy").write_bytes(b"x" * 99), "plain array"),
    ],
)
def test_a_spoilt_pannuke_is_named(spoil: object, text: str, tmp_path: Path) -> None:
    make_pannuke(tmp_path)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=text):
        PanNuke(tmp_path)


def test_no_fold_says_what_was_expected_and_found(tmp_path: Path) -> None:
    (tmp_path / "stuff").mkdir()
    with pytest.raises(DataError, match=r"Fold 1/images/fold1/images\.npy.*found stuff"):
        PanNuke(tmp_path)


OUTLINES = """<Annotations MicronsPerPixel="0.25"><Annotation Id="1"><Regions>
<Region Id="1"><Vertices>
<Vertex X="2.0" Y="1.0" Z="0"/><Vertex X="8" Y="1"/><Vertex X="8" Y="5"/><Vertex X="2" Y="5"/>
</Vertices></Region>
<Region Id="2"><Vertices><Vertex X="0" Y="0"/><Vertex X="9" Y="9"/></Vertices></Region>
<Region Id="3"><Vertices>
<Vertex X="6" Y="3"/><Vertex X="30" Y="3"/><Vertex X="30" Y="7"/><Vertex X="6" Y="7"/>
</Vertices></Region>
</Regions></Annotation></Annotations>"""


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("flat", [False, True])
def test_both_layouts_of_monuseg(compression: str | None, flat: bool, tmp_path: Path) -> None:
    images = tmp_path if flat else tmp_path / "Tissue Images"
    outlines = tmp_path if flat else tmp_path / "Annotations"
    for folder in (images, outlines):
        folder.mkdir(exist_ok=True)
    picture = Image.fromarray(np.full((10, 12, 3), 90, np.uint8))
    picture.save(images / "TCGA-1.tif", compression=compression)
    (outlines / "TCGA-1.xml").write_text(OUTLINES)
    (image,) = [MoNuSeg(tmp_path)[0]]
    assert image.pixels.shape == (10, 12, 3)
    assert image.pixels.max() == 90
    assert sorted(np.unique(image.labels)) == [0, 1, 3]  # two vertices are no region
    assert image.labels[2, 4] == 1
    assert image.labels[4, 7] == 3  # the later region lies on top
    assert image.labels[4, 11] == 3  # beyond the border it is cut


@pytest.mark.parametrize(
    "text", ["not xml", "<a><Region><Vertices><Vertex X='1'/></Vertices></Region></a>"]
)
def test_other_xml_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=r"a\.xml: is not Aperio XML"):
        draw_outlines(tmp_path / "a.xml", 8, 8)


def test_missing_parts_of_monuseg_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image of MoNuSeg"):
        MoNuSeg(tmp_path)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"has no outlines.*add a\.xml"):
        MoNuSeg(tmp_path)


def test_real_releases_agree_with_the_folder(real_data: Path) -> None:
    from adios_tme.benchmark.nuclei.label_folder import LabelFolder

    nuclei = real_data / "nuclei"
    folder = LabelFolder(nuclei / "folder")
    by_name = {folder[number].name: folder[number] for number in range(len(folder))}
    monuseg = MoNuSeg(nuclei / "monuseg")
    assert (len(folder), len(monuseg), len(PanNuke(nuclei / "pannuke"))) == (26, 8, 26)
    for number in range(len(monuseg)):
        image = monuseg[number]
        same = by_name[image.name]
        if image.labels.shape == same.labels.shape:
            shared = ((image.labels > 0) & (same.labels > 0)).sum()
            assert shared / ((image.labels > 0) | (same.labels > 0)).sum() > 0.85
