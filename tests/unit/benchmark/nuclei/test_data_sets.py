"""Releases of PanNuke and MoNuSeg, real and made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adios_tme.benchmark.nuclei.monuseg import MoNuSeg, draw_outlines
from adios_tme.benchmark.nuclei.pannuke import PanNuke, merge_classes
from adios_tme.data.left_out import LeftOut
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


IMAGES, MASKS = "Fold 1/images/fold1/images.npy", "Fold 1/masks/fold1/masks.npy"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_images_from_0_to_1_are_rescaled_and_told(dtype: str, tmp_path: Path) -> None:
    make_pannuke(tmp_path)
    levels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3))
    levels[1] = 0  # a black image is black in either range
    np.save(tmp_path / IMAGES, (levels / 255).astype(dtype))
    data = PanNuke(tmp_path)
    for number in range(3):
        np.testing.assert_array_equal(data[number].pixels, levels[number])
    assert data[3].pixels.max() == 80
    assert data.accounts.total().count("rescaled") == 1


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.linspace(-1, 1, 576), "from -1 to 1, expected 0 to 1 or 0 to 255"),
        (np.linspace(0, 2.5, 576), "from 0 to 2.5"),
        (np.linspace(0, 65535, 576), "from 0 to 65535"),
        (np.linspace(0, 65535, 576).astype(np.uint16), "image 0 has values from 0 to 21"),
        (np.linspace(-5, 200, 576).astype(np.int16), "image 0 has values from -5 to"),
        (np.arange(576) % 2, "nothing but 0 and 1"),
        (np.where(np.arange(576) == 5, np.nan, 90.0), "from nan to nan"),
    ],
)
def test_images_in_another_range_are_named(images: np.ndarray, text: str, tmp_path: Path) -> None:
    make_pannuke(tmp_path)
    np.save(tmp_path / IMAGES, images.reshape(3, 8, 8, 3))
    with pytest.raises(DataError, match=rf"images\.npy: .*{text}.*Save images as 0 to 255"):
        _ = PanNuke(tmp_path)[0]


def test_one_image_in_another_range_than_the_others(tmp_path: Path) -> None:
    make_pannuke(tmp_path, num_images=40)
    for types in tmp_path.rglob("types.npy"):
        types.unlink()
    images = np.full((40, 8, 8, 3), 200.0)
    images[3, 0, 0, 0] = 300
    np.save(tmp_path / IMAGES, images)
    data = PanNuke(tmp_path)
    assert data[2].pixels.max() == 200
    with pytest.raises(DataError, match="image 3 has values from 200 to 300, expected 0 to 255"):
        _ = data[3]


def test_masks_hold_ids_and_void_as_labels_do(tmp_path: Path) -> None:
    make_pannuke(tmp_path)
    masks = np.load(tmp_path / MASKS)
    masks[0, 7, 7, 2], masks[1, ..., 0] = -1, 0.25
    masks[2, :4, :4, 0] = 3e9
    np.save(tmp_path / MASKS, masks)
    data = PanNuke(tmp_path)
    assert data[0].labels[7, 7] == -1
    assert data.accounts.total().count("void") == 1
    with pytest.raises(DataError, match=r"masks\.npy: image 1 holds fractions such as 0\.25"):
        _ = data[1]
    assert np.unique(data[2].labels).tolist() == [0, 1, 2, 9]  # the last class has id 7


def test_pickled_arrays_are_never_read(tmp_path: Path) -> None:
    make_pannuke(tmp_path)
    types = np.array(["Breast", "Colon", "Breast"], dtype=object)
    np.save(tmp_path / "Fold 1/images/fold1/types.npy", types, allow_pickle=True)
    data = PanNuke(tmp_path)
    assert (data[0].tissue, data[3].tissue) == (None, "Breast")
    (line,) = data.accounts.total().lines()
    assert "tissues are not reported" in line
    assert "np.save(path, np.load(path, allow_pickle=True).astype(str))" in line
    np.save(tmp_path / IMAGES, np.full(3, None), allow_pickle=True)
    with pytest.raises(DataError, match=r"images\.npy: is an array of Python objects"):
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


def region(*corners: tuple[float, float], **facts: object) -> str:
    words = " ".join(f'{key}="{value}"' for key, value in facts.items())
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
    return f"<Region {words}><Vertices>{vertices}</Vertices></Region>"


def box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def drawn_from(tmp_path: Path, *regions: str) -> tuple[np.ndarray, LeftOut]:
    text = f'<Annotations><Annotation Id="1"><Regions>{"".join(regions)}</Regions></Annotation>'
    (tmp_path / "a.xml").write_text(f"{text}</Annotations>")
    account = LeftOut()
    return draw_outlines(tmp_path / "a.xml", 60, 80, account), account


@pytest.mark.parametrize("first", ["nucleus", "hole"])
def test_a_hole_is_cut_and_a_nucleus_inside_it_stays(first: str, tmp_path: Path) -> None:
    ring = region(*box(10, 10, 50, 50), Type=0, NegativeROA=0)
    hole = region(*box(20, 20, 40, 40), Type=0, NegativeROA=1)
    inner = region(*box(25, 25, 30, 30))
    order = (ring, hole, inner) if first == "nucleus" else (hole, ring, inner)
    labels, account = drawn_from(tmp_path, *order)
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes[sizes > 0].tolist() == [41**2 - 21**2, 36]
    assert labels[22, 22] == 0
    assert labels[27, 27] == 3
    assert not account


@pytest.mark.parametrize("facts", [{}, {"Type": 0}, {"Type": 1}, {"Type": 2}])
def test_polygons_of_every_kind(facts: dict[str, object], tmp_path: Path) -> None:
    octagon = [(30, 10), (40, 15), (45, 25), (40, 35), (30, 40), (20, 35), (15, 25), (20, 15)]
    labels, _ = drawn_from(tmp_path, region(*octagon, **facts))
    plain, _ = drawn_from(tmp_path, region(*octagon))
    np.testing.assert_array_equal(labels, plain)


def test_boxes_stand_for_rectangles_and_ellipses(tmp_path: Path) -> None:
    rectangle, _ = drawn_from(tmp_path, region((10, 5), (30, 25), Type=1))
    same, _ = drawn_from(tmp_path, region(*box(10, 5, 30, 25), Type=1))
    np.testing.assert_array_equal(rectangle, same)
    assert (rectangle > 0).sum() == 21 * 21
    two, _ = drawn_from(tmp_path, region((10, 10), (70, 50), Type=2))
    four, _ = drawn_from(tmp_path, region(*box(10, 10, 70, 50), Type=2))
    np.testing.assert_array_equal(two, four)
    rows, columns = np.mgrid[:60, :80]
    expected = ((rows - 30) / 20) ** 2 + ((columns - 40) / 30) ** 2 < 1
    np.testing.assert_array_equal(two > 0, expected)


def test_regions_that_are_not_drawn_are_counted(tmp_path: Path) -> None:
    labels, account = drawn_from(
        tmp_path,
        region(*box(10, 10, 20, 20)),
        region((1, 1), (5, 5)),
        region(),
        region((1, 1), (5, 5), (9, 1), Type=3),
        region((1, 1), (5, 5), Type=4),
        region(*box(200, 200, 220, 220)),
    )
    assert np.unique(labels).tolist() == [0, 1]
    counts = {entry["reason"]: entry["count"] for entry in account.as_json()}
    assert counts == {"few_vertices": 2, "other_shape": 2, "outside_image": 1}
    assert account.as_json()[0]["examples"] == ["a.xml 2", "a.xml 3"]


PAGE = (
    "<!DOCTYPE html>\n<html><head><title>Quota exceeded</title></head><body><p>x</p></body></html>"
)


@pytest.mark.parametrize(
    "text",
    [
        PAGE,
        "<Annotations><Annotation><Regions/></Annotation></Annotations>",
        f"<Annotations>{region((1, 1), (2, 2))}</Annotations>",
        f"<Annotations>{region(*box(900, 900, 920, 920))}</Annotations>",
    ],
)
def test_a_file_without_an_outline_is_named(text: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "a.tif")
    (tmp_path / "a.xml").write_text(text)
    data = MoNuSeg(tmp_path)
    with pytest.raises(DataError, match=r"a\.xml: holds no outline of a nucleus .*it is <\w+>"):
        _ = data[0]


def test_capitals_and_other_files_of_monuseg(tmp_path: Path) -> None:
    for folder in ("Tissue Images", "Annotations", "__MACOSX"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "Tissue Images/T1.TIF")
    (tmp_path / "Annotations" / "T1.XML").write_text(region(*box(2, 2, 9, 9)))
    (tmp_path / "Annotations" / "T2.xml").write_text(region(*box(2, 2, 9, 9)))
    for junk in ("Tissue Images/._T1.tif", "__MACOSX/T1.tif"):
        (tmp_path / junk).write_bytes(b"junk")
    (tmp_path / "Tissue Images" / "T3.png").write_bytes(b"x")
    data = MoNuSeg(tmp_path)
    assert len(data) == 1
    assert (data[0].labels > 0).sum() == 64
    counts = {entry["reason"]: entry["count"] for entry in data.accounts.total().as_json()}
    assert counts == {"junk": 2, "label_alone": 1, "neither_tiff_nor_xml": 1}


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
