"""Labels as real tools write them: ids of every width, void, orientation, capitals, junk."""

from __future__ import annotations

import io
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from adios_tme.benchmark.nuclei import label_map
from adios_tme.benchmark.nuclei.instance_scores import compare
from adios_tme.benchmark.nuclei.label_folder import LabelFolder
from adios_tme.benchmark.nuclei.label_map import VOID, instance_ids, read_label_map
from adios_tme.benchmark.nuclei.pixel_scores import score_image, score_pixels
from adios_tme.errors import DataError
from tests.hostile import tiff_with, turned
from tests.tiffs import PLAIN, Layout, half_as_many, laid_out, layouts, tiff, with_second

SHAPE = (9, 14)
Array = NDArray[Any]


def ids(seed: int = 0, highest: int = 300) -> Array:
    """Random ids, half of the pixels background."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, highest, SHAPE) * rng.integers(0, 2, SHAPE)
    values.flat[0] = highest
    return values


#: Every pixel one of many nuclei.
DRAWN = np.arange(1, 64 * 64 + 1, dtype=np.uint16).reshape(64, 64)


def save(path: Path, values: Array, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png" or "exif" in options:
        Image.fromarray(values).save(path, "PNG", **options)
    else:
        path.write_bytes(tiff(values, **options))
    return path


WHOLE = ("uint16", "uint32", "uint64", "int16", "int32", "int64", "float16", "float32", "float64")


@settings(max_examples=150, deadline=None)
@given(dtype=st.sampled_from(WHOLE), layout=layouts, seed=st.integers(0, 99))
@example("float32", PLAIN | {"compression": "zlib", "byteorder": ">"}, 0)
@example("int32", PLAIN | {"compression": "zlib", "byteorder": ">"}, 0)
def test_ids_of_every_type_that_tiff_knows(dtype: str, layout: Layout, seed: int) -> None:
    written = ids(seed)
    content = laid_out(written.astype(dtype), layout)
    found = read_back(content)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, turned(written, layout["orientation"] or 1))


@settings(max_examples=150, deadline=None)
@given(dtype=st.sampled_from(WHOLE), layout=layouts, seed=st.integers(0, 99))
@example("uint16", PLAIN | {"compression": "lzw"}, 0)
@example("uint16", PLAIN | {"compression": "packbits", "predictor": True}, 0)
def test_ids_in_packings_that_tifffile_cannot_read_are_right_or_refused(
    dtype: str, layout: Layout, seed: int
) -> None:
    written = ids(seed)
    content = laid_out(written.astype(dtype), layout)
    with mock.patch.object(label_map, "_by_tifffile", side_effect=KeyError("imagecodecs")):
        try:
            found = read_back(content)
        except DataError:
            assert (dtype, layout["bigtiff"], layout["predictor"]) != ("uint16", False, False)
            return
    np.testing.assert_array_equal(found, turned(written, layout["orientation"] or 1))


def read_back(content: bytes) -> Array:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "label.tif").write_bytes(content)
        return read_label_map(Path(folder) / "label.tif")


@pytest.mark.parametrize("packing", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_ids_in_packings_that_pillow_knows(
    packing: str | None, dtype: str, orientation: int, tmp_path: Path
) -> None:
    written = ids().astype(dtype)
    values = written
    if dtype == "uint32":  # Pillow writes it as signed
        written[0, 0] = 3_000_000_000
        values = written.view(np.int32)
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path, compression=packing, tiffinfo={274: orientation})
    if dtype == "uint32":
        path.write_bytes(tiff_with(path.read_bytes(), {339: 1}))
    expected = instance_ids(turned(written, orientation))
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_label_and_its_image_are_turned_by_one_rule(orientation: int, tmp_path: Path) -> None:
    written, pixels = ids(), np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), np.uint8)
    pixels[..., 0] = written % 256
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "images" / "a.png", pixels, exif=exif)
    save(tmp_path / "labels" / "a.png", written.astype(np.uint16), exif=exif)
    image = LabelFolder(tmp_path)[0]
    assert image.labels.shape == turned(written, orientation).shape
    np.testing.assert_array_equal(image.pixels[..., 0], image.labels % 256)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 3_000_000_001, 3_000_000_009], "uint32"),
        ([0, 2**31 - 1, 2**31 + 1], "uint64"),
        ([0, 2**63 + 1, 2**63 + 2], "uint64"),
        ([0, 2**40, 2**50], "int64"),
        ([0, 2**40, 2**50], "float64"),
        ([0, 2**20 + 1, 2**20 + 2], "int32"),
    ],
)
def test_ids_of_any_width_are_numbered_anew_in_their_order(
    values: list[int], dtype: str, tmp_path: Path
) -> None:
    label = np.array([values, values[::-1]], dtype=dtype)
    assert instance_ids(label).tolist() == [[0, 1, 2], [2, 1, 0]]
    assert read_label_map(save(tmp_path / "a.tif", label)).tolist() == [[0, 1, 2], [2, 1, 0]]


def test_small_ids_stay_as_they_are() -> None:
    assert instance_ids(np.array([[0, 7, 2**20]], np.uint32)).tolist() == [[0, 7, 2**20]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 0.5]], np.float32), "holds fractions such as 0.5"),
        (np.array([[0, np.nan]], np.float32), "not finite"),
        (np.array([[0, np.inf]], np.float64), "not finite"),
        (np.array([[0, 2**24 + 2]], np.float32), "up to 16777218 as float32"),
        (np.array([[0, 4096]], np.float16), "up to 4096 as float16"),
        (np.array([[0, 7]], np.uint8), "has 8 bits"),
        (np.array([[0, 7]], np.int8), "has 8 bits"),
        (np.zeros((4, 4, 3), np.uint16), "is a colour image or a stack"),
        (np.zeros((3, 4, 5), np.uint16), "is a colour image or a stack"),
        (np.zeros((4, 5), np.complex64), "not whole numbers"),
    ],
)
def test_what_is_no_label_is_refused_by_name(values: Array, reason: str, tmp_path: Path) -> None:
    stack: dict[str, Any] = {"photometric": "minisblack"} if values.shape == (3, 4, 5) else {}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, **stack)
    with pytest.raises(DataError, match=rf"a\.tif: .*{reason}.*Write instance ids"):
        read_label_map(path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_other_modes_of_png_are_refused(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"8 bits|a colour image"):
        read_label_map(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"text", b"II*\0", tiff(ids())[:60]])
def test_damage_is_told_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tif: .*Write instance ids"):
        read_label_map(tmp_path / "a.tif")


#: In four strips or sixteen tiles; with the tags of their places and of their lengths.
IN_PARTS = {
    "strips": (tiff(DRAWN, rowsperstrip=16), 273, 279),
    "packed strips": (tiff(DRAWN, rowsperstrip=16, compression="zlib"), 273, 279),
    "tiles": (tiff(DRAWN, tile=(16, 16)), 324, 325),
}


@pytest.mark.parametrize(("content", "places", "lengths"), IN_PARTS.values(), ids=IN_PARTS)
def test_parts_that_are_missing_are_no_background(
    content: bytes,
    places: int,
    lengths: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "a.tif"

    def read(changed: bytes) -> Array:
        path.write_bytes(changed)
        labels: Array = read_label_map(path)
        return labels

    for nowhere in (with_second(content, [places], 0), half_as_many(content, places)):
        with pytest.raises(DataError, match=r"a\.tif: a TIFF that lacks \d of its (4|16) parts"):
            read(nowhere)
    for changed in (
        half_as_many(content, lengths),
        with_second(content, [lengths], 0),
        with_second(content, [lengths], 9),
        content[:-40],
    ):
        with suppress(DataError):
            np.testing.assert_array_equal(read(changed), DRAWN)
    left_out = read(with_second(content, [places, lengths], 0))  # as GDAL writes what is empty
    assert 0 < (left_out != DRAWN).sum() == (DRAWN[left_out != DRAWN] > 0).sum()
    assert "tifffile" not in capfd.readouterr().err


@pytest.mark.timeout(20)
def test_a_page_that_names_itself_as_the_next_ends_all_the_same(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for side in (9, 8):
            writer.write(np.ones((side, side), np.uint16), metadata=None)
    content = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        last = int(file.pages[-1].offset)
    (num_tags,) = struct.unpack_from("<H", content, last)
    struct.pack_into("<L", content, last + 2 + 12 * num_tags, last)
    (tmp_path / "a.tif").write_bytes(content)
    assert read_label_map(tmp_path / "a.tif").tolist() == np.ones((9, 9)).tolist()


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "float32"])
def test_numbers_below_zero_are_void_whatever_their_type(dtype: str, tmp_path: Path) -> None:
    values = np.array([[-1, 0, 3], [-9, 1, 3]], dtype=dtype)
    found = read_label_map(save(tmp_path / "a.tif", values))
    assert found.tolist() == [[VOID, 0, 3], [VOID, 1, 3]]


def void_below(row: int, truth: Array) -> Array:
    voided = truth.copy()
    voided[row:] = VOID
    return voided


def blocks(*corners: tuple[int, int]) -> Array:
    labels = np.zeros((40, 40), dtype=np.int32)
    for number, (top, left) in enumerate(corners, start=1):
        labels[top : top + 6, left : left + 6] = number
    return labels


def test_pixels_and_nuclei_agree_that_void_counts_nowhere() -> None:
    truth = void_below(20, blocks((2, 2), (10, 20)))
    assert compare(truth, np.maximum(truth, 0)) == (1, 1, 1, 1)
    rng = np.random.default_rng(0)
    mask = np.where(truth > 0, 0.9, 0.1)
    scores = []
    for _ in range(2):
        mask[20:] = rng.random((20, 40))  # whatever is found there
        grey = np.zeros((*mask.shape, 3), np.uint8)
        scores.append(score_image(mask[None].astype(np.float32), grey, truth, None))
    for scored in scores:
        assert scored.channels[0].aji == scored.channels[0].pq == 1
        assert scored.pixels.auprc[0] == 1
        for name in ("iou", "dice", "precision", "recall"):
            assert getattr(scored.pixels, name)[0, 9] == 1, name
    # The same pixels cut off instead of voided.
    noisy = rng.random((1, 40, 40)).astype(np.float32)
    whole, cut = score_pixels(noisy, truth), score_pixels(noisy[:, :20], truth[:20])
    for name in ("iou", "dice", "precision", "recall", "auprc"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(cut, name))


def test_a_predicted_nucleus_counts_if_half_of_it_is_annotated() -> None:
    truth = void_below(20, blocks((2, 2)))
    for top, aji in ((16, 36 / (36 + 24)), (17, 36 / (36 + 18)), (18, 1.0)):
        predicted = blocks((2, 2), (top, 20))
        assert compare(truth, predicted).aji == pytest.approx(aji)
    assert compare(truth, blocks((2, 2), (30, 20))) == (1, 1, 1, 1)


@pytest.mark.parametrize("top", range(14, 20))
def test_a_nucleus_that_void_cuts_is_found_by_one_that_goes_on_there(top: int) -> None:
    whole = blocks((2, 2), (top, 20))
    assert compare(void_below(20, whole), whole) == (1, 1, 1, 1)


def test_far_ids_need_no_large_table() -> None:
    near = blocks((2, 2), (10, 20))
    far = np.where(near > 0, near + (2**31 - 4), 0).astype(np.int32)
    assert compare(far, near) == compare(near, far) == (1, 1, 1, 1)


def test_void_is_told_and_an_image_of_nothing_else_is_refused(tmp_path: Path) -> None:
    for name, values in (("a", [[-1, 0], [0, 1]]), ("b", [[0, 0], [0, 1]]), ("c", [[-1] * 2] * 2)):
        save(tmp_path / "images" / f"{name}.png", np.zeros((2, 2, 3), np.uint8))
        save(tmp_path / "labels" / f"{name}.tif", np.array(values, np.int16))
    folder = LabelFolder(tmp_path)
    for _ in range(2):  # an image that is read again is told once
        assert folder[0].labels.tolist() == [[VOID, 0], [0, 1]]
    assert folder[1].labels.min() == 0
    (entry,) = folder.accounts.total().as_json()
    assert (entry["reason"], entry["count"], entry["examples"]) == ("void", 1, ["a.tif"])
    with pytest.raises(DataError, match=r"c\.tif: holds numbers below 0 alone"):
        _ = folder[2]


def test_capitals_never_matter(tmp_path: Path) -> None:
    pairs = [("a.TIF", "a.PNG"), ("b.PNG", "b.Tiff"), ("C.Png", "c.tif"), ("d.JPEG", "D.TIF")]
    for number, (image, label) in enumerate(pairs, start=1):
        (tmp_path / "images").mkdir(exist_ok=True)
        kind = "JPEG" if image.endswith("JPEG") else "PNG"
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / image, kind)
        save(tmp_path / "labels" / label, np.full((4, 4), number, np.uint16))
    folder = LabelFolder(tmp_path)
    assert {folder[n].name: folder[n].labels.max() for n in range(4)} == {
        "a": 1,
        "b": 2,
        "C": 3,
        "d": 4,
    }
    assert not folder.accounts.total()


def test_of_two_labels_the_one_with_the_same_capitals_is_taken(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.zeros((4, 4, 3), np.uint8))
    for number, name in enumerate(("A.png", "a.png"), start=1):
        save(tmp_path / "labels" / name, np.full((4, 4), number, np.uint16))
    folder = LabelFolder(tmp_path)
    assert folder[0].labels.max() == 2
    assert folder.accounts.total().count("label_alone") == 1


def test_what_is_not_taken_is_counted(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", np.zeros((4, 4, 3), np.uint8))
    save(tmp_path / "labels" / "a.png", np.ones((4, 4), np.uint16))
    save(tmp_path / "labels" / "b.png", np.ones((4, 4), np.uint16))
    for name in ("images/._a.png", "images/.DS_Store", "labels/Thumbs.db", "labels/._a.png"):
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "images" / "notes.txt").write_text("x")
    (tmp_path / "images" / "more").mkdir()
    folder = LabelFolder(tmp_path)
    assert len(folder) == 1
    account = folder.accounts.total()
    counts = {entry["reason"]: entry["count"] for entry in account.as_json()}
    assert counts == {"junk": 4, "not_an_image": 1, "label_alone": 1}
    assert any("1 labels without an image (labels/b.png)" in line for line in account.lines())
