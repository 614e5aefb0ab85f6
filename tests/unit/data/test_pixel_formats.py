"""Images in every format and mode that Pillow and tifffile write: right pixels, or damage in words.

What is right is computed here from the array that was written, never by the reader. The same rule
serves patches, pictures and benchmark images.
"""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from adios_tme.data.corrupt import CorruptPatchError
from adios_tme.data.decode import decode_image
from tests.hostile import OME_PLANES, turned
from tests.tiffs import PLAIN, Layout, half_as_many, laid_out, layouts, tiff, with_second

SHAPE = (9, 14)
Array = NDArray[Any]


def drawn(*shape: int, seed: int = 0, dtype: str = "uint8") -> Array:
    """Random samples that reach over the whole range of 8 bits."""
    values = np.random.default_rng(seed).integers(0, 256, shape)
    values.flat[0] = 255
    return values.astype(dtype)


def grey(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def over_white(colours: Array, alpha: Array) -> Array:
    share = alpha[..., None] / 255
    return np.asarray((colours * share + 255 * (1 - share)).round())


def decoded(content: bytes) -> Array | None:
    """The pixels; None where the file is refused."""
    try:
        return decode_image(content)
    except CorruptPatchError:
        return None


class Written(NamedTuple):
    image: Image.Image
    rgb: Array
    """What must be read."""


def with_pillow(mode: str, seed: int) -> Written:
    """An image of a mode, with what its colours are."""
    channels = {"LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}.get(mode)
    values = drawn(*SHAPE, *([channels] if channels else []), seed=seed)
    image = Image.fromarray(values) if mode not in ("CMYK", "YCbCr", "P") else None
    match mode:
        case "1":
            return Written(Image.fromarray(values > 127), grey(np.where(values > 127, 255, 0)))
        case "I;16":
            return Written(Image.fromarray(values.astype(np.uint16) * 257), grey(values))
        case "F":
            return Written(Image.fromarray(values.astype(np.float32) / 255), grey(values))
        case "P":
            palette = drawn(256, 3, seed=seed + 1)
            indexed = Image.fromarray(values).convert("P")
            indexed.putpalette(palette.tobytes())
            return Written(indexed, palette[np.asarray(indexed)])
        case "CMYK":
            black = 255 - values[..., 3:].astype(int)
            inks = Image.fromarray(values, "CMYK")
            return Written(inks, ((255 - values[..., :3].astype(int)) * black / 255).round())
        case "LA":
            assert image is not None
            return Written(image, over_white(grey(values[..., 0]), values[..., 1]))
        case "RGBA":
            assert image is not None
            return Written(image, over_white(values[..., :3], values[..., 3]))
        case "L":
            assert image is not None
            return Written(image, grey(values))
    assert image is not None
    return Written(image, values)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PILLOW_MODES = ("1", "L", "I;16", "F", "P", "LA", "RGB", "RGBA", "CMYK")
TIFF_PACKINGS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
#: Rounding of one level, where alpha is blended or colours are computed from inks.
BLENDED = 1


@settings(max_examples=120, deadline=None)
@given(
    mode=st.sampled_from(PILLOW_MODES),
    kind=st.sampled_from(("PNG", "TIFF", "WEBP")),
    packing=st.sampled_from(TIFF_PACKINGS),
    orientation=st.sampled_from((None, *range(1, 9))),
    seed=st.integers(0, 99),
)
def test_whatever_pillow_writes_without_loss(
    mode: str, kind: str, packing: str | None, orientation: int | None, seed: int
) -> None:
    if kind == "WEBP" and mode in ("I;16", "F"):
        return  # Pillow itself cuts off what is above 255 before it writes
    image, rgb = with_pillow(mode, seed)
    options: dict[str, Any] = {}
    if kind == "TIFF":
        options = {"compression": packing}
    elif kind == "WEBP":
        options = {"lossless": True, "exact": True}
    if orientation is not None:
        options["exif"] = exif(orientation)
    try:
        content = saved(image, kind, **options)
    except (OSError, ValueError):
        return  # Pillow does not write that mode in that format
    found = decoded(content)
    assert found is not None
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    expected = turned(rgb, orientation or 1)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= BLENDED


def exif(orientation: int) -> Image.Exif:
    facts = Image.Exif()
    facts[0x0112] = orientation
    return facts


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_orientation_of_a_jpeg(orientation: int, mode: str) -> None:
    rows, columns = np.mgrid[:32, :48]
    smooth = np.stack([rows * 8, columns * 5, 255 - rows * 4 - columns], axis=2).astype(np.uint8)
    image = Image.fromarray(smooth).convert(mode)
    plain = decode_image(saved(image, "JPEG", quality=95))
    content = saved(image, "JPEG", quality=95, exif=exif(orientation))
    np.testing.assert_array_equal(decode_image(content), turned(plain, orientation))
    scaled = decode_image(content, needed_px=4)
    assert (scaled.shape[0] < scaled.shape[1]) == (orientation < 5)


def test_the_first_of_two_orientations_counts() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 40, 3), dtype=np.uint8))
    plain = decode_image(saved(image, "JPEG"))
    once = saved(image, "JPEG", exif=exif(6))
    entry = struct.Struct(">HHL")  # tag, numbers of 16 bits, how many
    twice = once.replace(entry.pack(0x0112, 3, 1), entry.pack(0x0112, 3, 2))
    assert twice != once
    np.testing.assert_array_equal(decode_image(twice), turned(plain, 6))


def test_orientation_in_words_of_xmp_and_of_a_text_chunk() -> None:
    image, rgb = with_pillow("RGB", 1)
    facts = PngImagePlugin.PngInfo()
    facts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    np.testing.assert_array_equal(decode_image(saved(image, "PNG", pnginfo=facts)), turned(rgb, 6))
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Software", "tiff:Orientation=6")
    np.testing.assert_array_equal(decode_image(saved(image, "PNG", pnginfo=facts)), rgb)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_facts_are_no_damaged_pixels(kind: str) -> None:
    image, _ = with_pillow("RGB", 2)
    content = saved(image, kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03")
    assert decode_image(content).shape == (*SHAPE, 3)


@pytest.mark.parametrize("packing", [None, "zlib"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_parts_of_a_tiff_that_are_missing_are_told(
    tile: tuple[int, int] | None, planar: bool, packing: str | None
) -> None:
    rgb = drawn(64, 64, 3)
    parts: dict[str, Any] = {"rowsperstrip": 16} if tile is None else {"tile": tile}
    order = {"planarconfig": "separate" if planar else "contig", "compression": packing}
    values = np.moveaxis(rgb, 2, 0) if planar else rgb
    content = tiff(values, photometric="rgb", **order, **parts)
    np.testing.assert_array_equal(decode_image(content), rgb)
    places = 273 if tile is None else 324
    needed = (4 if tile is None else 16) * (3 if planar else 1)
    with pytest.raises(CorruptPatchError, match=f"a TIFF that lacks 1 of its {needed} parts"):
        decode_image(with_second(content, [places], 0))
    half = needed // 2
    with pytest.raises(CorruptPatchError, match=f"a TIFF that lacks {half} of its {needed} parts"):
        decode_image(half_as_many(content, places))


def test_a_colour_profile_changes_no_pixel() -> None:
    from PIL import ImageCms

    image, rgb = with_pillow("RGB", 3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        content = saved(image, kind, icc_profile=profile, **options)
        np.testing.assert_array_equal(decode_image(content), rgb)


def test_a_jpeg_that_stores_red_green_and_blue() -> None:
    image = Image.fromarray(np.full((16, 16, 3), (200, 30, 90), np.uint8))
    content = saved(image, "JPEG", quality=100, keep_rgb=True)
    assert np.abs(decode_image(content).astype(int) - (200, 30, 90)).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "P"])
def test_a_transparent_colour_becomes_white(mode: str) -> None:
    image, rgb = with_pillow(mode, 4)
    values = np.asarray(image)
    place = values[3, 4]
    clear = tuple(place.tolist()) if mode == "RGB" else int(place) * (255 if mode == "1" else 1)
    found = decode_image(saved(image, "PNG", transparency=clear))
    expected = rgb.copy()
    expected[(values == place).reshape(*SHAPE, -1).all(axis=2)] = 255
    np.testing.assert_array_equal(found, expected)


def test_a_transparent_palette_becomes_white() -> None:
    image, rgb = with_pillow("P", 5)
    alphas = bytes(range(256))
    found = decode_image(saved(image, "PNG", transparency=alphas))
    expected = over_white(rgb, np.asarray(image))
    assert np.abs(found.astype(int) - expected).max() <= BLENDED


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_no_image(kind: str) -> None:
    frames = [with_pillow("RGB", seed)[0] for seed in (1, 2)]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)
    with pytest.raises(CorruptPatchError, match="an animation"):
        decode_image(content)


class TiffCase(NamedTuple):
    values: Array
    options: dict[str, Any]
    rgb: Array | None
    """What must be read; None where refusing is the only answer."""


DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float16", "float32")
MODELS = ("minisblack", "miniswhite", "rgb", "rgba", "rgbx", "separated")


def tiff_case(dtype: str, model: str, separate: bool, seed: int) -> TiffCase:
    channels = {"rgb": 3, "rgba": 4, "rgbx": 4, "separated": 4}.get(model, 1)
    levels = drawn(*SHAPE, channels, seed=seed)
    factor = {"uint16": 257, "float16": 1 / 255, "float32": 1 / 255}.get(dtype, 1)
    values = (levels.astype(float) * factor).astype(dtype)
    options: dict[str, Any] = {"photometric": model[:3] if "rgb" in model else model}
    if model == "rgba":
        options["extrasamples"] = ["unassalpha"]
    if model == "rgbx":
        options["extrasamples"] = ["unspecified"]
    if channels == 1:
        values = values[..., 0]
    elif separate:
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
        options["planarconfig"] = "separate"
    else:
        options["planarconfig"] = "contig"
    if dtype not in ("uint8", "uint16", "float32") or model == "rgbx":
        return TiffCase(values, options, None)
    colours = levels[..., :3].astype(int)
    match model:
        case "minisblack":
            rgb = grey(levels[..., 0])
        case "miniswhite":
            rgb = grey(255 - levels[..., 0])
        case "rgba":
            rgb = over_white(colours, levels[..., 3])
        case "separated":
            rgb = (255 - colours) * (255 - levels[..., 3:].astype(int)) / 255
        case _:
            rgb = colours
    return TiffCase(values, options, rgb)


@settings(max_examples=200, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    model=st.sampled_from(MODELS),
    separate=st.booleans(),
    layout=layouts,
    seed=st.integers(0, 99),
)
@example("uint16", "rgb", True, PLAIN, 0)
@example("uint16", "miniswhite", False, PLAIN | {"compression": "zlib"}, 0)
@example("float32", "minisblack", False, PLAIN | {"compression": "zlib", "byteorder": ">"}, 0)
@example("uint8", "rgb", False, PLAIN | {"compression": "packbits", "predictor": True}, 0)
def test_whatever_tifffile_writes(
    dtype: str, model: str, separate: bool, layout: Layout, seed: int
) -> None:
    values, options, rgb = tiff_case(dtype, model, separate, seed)
    found = decoded(laid_out(values, layout, **options))
    if rgb is None or found is None:
        assert found is None
        assert rgb is None or is_rare(dtype, model, separate, layout)
        return
    expected = turned(rgb, layout["orientation"] or 1)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= BLENDED


def is_rare(dtype: str, model: str, separate: bool, layout: Layout) -> bool:
    """Whether Pillow has no way to read it, so that it is told as damage."""
    is_big_endian = layout["byteorder"] == ">"
    if layout["bigtiff"] and is_big_endian:
        return True
    if layout["compression"] == "packbits" and layout["predictor"]:
        return True
    if dtype == "uint8":
        return False
    if dtype == "uint16":
        return separate or (model == "miniswhite" and is_big_endian)
    return model != "minisblack" or is_big_endian


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("axes", ["ome", "imagej"])
def test_pages_of_red_green_and_blue(axes: str, dtype: str) -> None:
    rgb = drawn(*SHAPE, 3, seed=6)
    planes = rgb.transpose(2, 0, 1).astype(dtype) * (257 if dtype == "uint16" else 1)
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        planes,
        photometric="minisblack",
        metadata={"axes": "CYX"},
        ome=axes == "ome",
        imagej=axes == "imagej",
    )
    np.testing.assert_array_equal(decode_image(stream.getvalue()), rgb)


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ((3,), {"ome": True, "metadata": {"axes": "ZYX"}}, "3 pages of one size"),
        ((3,), {"ome": True, "metadata": {"axes": "TYX"}}, "3 pages of one size"),
        ((4,), {"ome": True, "metadata": {"axes": "CYX"}}, "4 pages of one size"),
        ((2, 3), {"ome": True, "metadata": {"axes": "ZCYX"}}, "6 pages of one size"),
        ((3,), {"imagej": True, "metadata": {"axes": "ZYX"}}, "3 pages of one size"),
        ((3,), {"metadata": None}, "3 pages of one size"),
        ((3,), {"metadata": {"axes": "CYX"}, "truncate": True}, "behind its first page"),
        ((3,), {"imagej": True, "truncate": True}, "1 of 3 planes"),
    ],
)
def test_other_stacks_are_refused(
    shape: tuple[int, ...], options: dict[str, Any], reason: str
) -> None:
    stream = io.BytesIO()
    stack = drawn(*shape, *SHAPE)
    tifffile.imwrite(stream, stack, photometric="minisblack", **options)
    with pytest.raises(CorruptPatchError, match=reason):
        decode_image(stream.getvalue())


def test_an_ome_file_that_orders_its_channels_otherwise() -> None:
    stream = io.BytesIO()
    swapped = OME_PLANES.replace('IFD="0" FirstC="0"', 'IFD="2" FirstC="0"')
    for text, fits in ((OME_PLANES, True), (swapped, False)):
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream) as writer:
            for plane, description in zip(drawn(3, *SHAPE), (text, None, None), strict=True):
                writer.write(plane, description=description, metadata=None, contiguous=False)
        assert (decoded(stream.getvalue()) is not None) == fits


def test_one_plane_of_a_set_of_files_is_no_picture() -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, drawn(*SHAPE), description=OME_PLANES, metadata=None)
    with pytest.raises(CorruptPatchError, match="holds 1 of 3 planes"):
        decode_image(stream.getvalue())


def test_of_a_pyramid_the_whole_image_is_taken() -> None:
    whole, half = drawn(32, 48, 3, seed=1), drawn(16, 24, 3, seed=2)
    for kind in (0, 1):
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream) as writer:
            writer.write(whole, photometric="rgb", metadata=None)
            writer.write(half, photometric="rgb", subfiletype=kind, metadata=None)
        np.testing.assert_array_equal(decode_image(stream.getvalue()), whole)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(half, photometric="rgb", metadata=None)
        writer.write(whole, photometric="rgb", metadata=None)
    with pytest.raises(CorruptPatchError, match="not its largest"):
        decode_image(stream.getvalue())


def test_more_pages_than_anyone_looks_at() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for side in (16, *[8] * 65):
            writer.write(drawn(side, side), metadata=None)
    with pytest.raises(CorruptPatchError, match="more than 64 pages"):
        decode_image(stream.getvalue())


@pytest.mark.parametrize("premultiplied", [False, True])
@pytest.mark.parametrize("channels", [2, 4])
def test_associated_alpha_is_over_white_too(premultiplied: bool, channels: int) -> None:
    values = drawn(*SHAPE, channels, seed=7)
    alpha = values[..., -1]
    alpha[:, :5], alpha[:, 5:9] = 0, 255
    colours = grey(values[..., 0]) if channels == 2 else values[..., :3]
    expected = over_white(colours, alpha)
    if premultiplied:
        values[..., :-1] = (values[..., :-1] * (alpha[..., None] / 255)).round()
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        values,
        photometric="rgb" if channels == 4 else "minisblack",
        planarconfig="contig",
        extrasamples=["assocalpha" if premultiplied else "unassalpha"],
    )
    found = decoded(stream.getvalue())
    if found is None:
        assert premultiplied  # older Pillows refuse it where it is grey
        assert channels == 2
        return
    off = np.abs(found.astype(int) - expected)
    assert off[:, :9].max() == 0
    assert off.max() <= 3  # what was multiplied by a small alpha is rounded


@pytest.mark.parametrize(
    ("values", "right"),
    [
        (np.array([[0.0, 0.5], [1.0, 0.25]], np.float32), [[0, 128], [255, 64]]),
        (np.array([[0.0, 17.6], [255.0, 3.0]], np.float32), [[0, 18], [255, 3]]),
        (np.array([[0.0, 1.2]], np.float32), "from 0 to 1.2"),
        (np.array([[-1.0, 1.0]], np.float32), "from -1 to 1"),
        (np.array([[0.0, 300.0]], np.float32), "from 0 to 300"),
        (np.array([[0.0, np.nan]], np.float32), "nan"),
        (np.array([[0.0, np.inf]], np.float32), "inf"),
        (np.array([[0, 4095]], np.uint16), "under a sixteenth"),
        (np.array([[0, 255]], np.uint16), "under a sixteenth"),
        (np.array([[[0, 4095, 7]]], np.uint16), "under a sixteenth"),
        (np.array([[[0, 4096, 7]]], np.uint16), [[[0, 16, 0]]]),
        (np.array([[0, 40000]], np.uint16), [[0, 156]]),
        (np.array([[0, 7]], np.int32), "whose range is not known"),
        (np.array([[-1, 7]], np.int16), "whose range is not known"),
        (np.array([[-1, 7]], np.int8), "whose range is not known"),
        (np.array([[0, 7]], np.uint32), "whose range is not known"),
        (np.zeros((4, 4, 3), np.float32), "a TIFF of a kind that is not read"),
    ],
)
def test_ranges_are_certain_or_refused(values: Array, right: Any) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="rgb" if values.ndim == 3 else "minisblack")
    if isinstance(right, str):
        with pytest.raises(CorruptPatchError, match=right):
            decode_image(stream.getvalue())
        return
    expected = np.array(right) if values.ndim == 3 else grey(np.array(right))
    np.testing.assert_array_equal(decode_image(stream.getvalue()), expected)


def test_a_palette_of_eight_bits_is_not_read_as_black() -> None:
    stream = io.BytesIO()
    palette = drawn(3, 256, dtype="uint16")
    tifffile.imwrite(stream, drawn(*SHAPE), photometric="palette", colormap=palette)
    with pytest.raises(CorruptPatchError, match="palette has 8 bits"):
        decode_image(stream.getvalue())
    stream = io.BytesIO()
    values = drawn(*SHAPE)
    tifffile.imwrite(stream, values, photometric="palette", colormap=palette * 257)
    np.testing.assert_array_equal(decode_image(stream.getvalue()), palette.T[values])


def test_other_models_of_colour_are_refused() -> None:
    content = saved(Image.new("LAB", (4, 4)), "TIFF")
    with pytest.raises(CorruptPatchError, match="colours of the model LAB"):
        decode_image(content)
