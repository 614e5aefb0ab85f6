"""Which page of a TIFF is the picture; whether pages are its red, green and blue."""

from __future__ import annotations

import re

from PIL import Image

from adios_tme.data.corrupt import CorruptPatchError

#: Pages that are looked at; a pyramid has about ten.
MAX_PAGES = 64

_DESCRIPTION, _SUBFILE_KIND = 270, 254
_REDUCED_COPY = 1
_TRUNCATED = '"truncated": true'


def pages_of_picture(image: Image.Image) -> list[int]:
    """The pages that make the picture: one, or three that are its red, green and blue.

    Smaller pages after the first are the lower levels of a pyramid, or a thumbnail. An animated
    image of another format is no picture; of a JPEG with several the first is.

    Raises:
        CorruptPatchError: If it is not certain which pages are meant.
    """
    if image.format != "TIFF":
        if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
            raise CorruptPatchError("an animation, not a single image")
        return [0]
    channels, planes = _described(image)
    pages = _pages_of_one_size(image)
    if len(pages) == planes == 1:
        return pages
    image.seek(0)
    if len(pages) == planes == channels == 3 and len(image.getbands()) == 1:
        return pages
    if len(pages) != planes and planes > 1:
        raise CorruptPatchError(f"a TIFF that holds {len(pages)} of {planes} planes")
    raise CorruptPatchError(
        f"a TIFF of {len(pages)} pages of one size that are not said to be red, green and blue"
    )


def _pages_of_one_size(image: Image.Image) -> list[int]:
    """The first page, and each other that is as large and no reduced copy."""
    first, pages = image.size, [0]
    for page in range(1, MAX_PAGES + 1):
        try:
            image.seek(page)
        except EOFError:
            return pages
        kind = image.tag_v2.get(_SUBFILE_KIND, 0)  # type: ignore[attr-defined]
        if image.size == first and not kind & _REDUCED_COPY:
            pages.append(page)
        elif image.width > first[0] or image.height > first[1]:
            raise CorruptPatchError("a TIFF whose first page is not its largest")
    raise CorruptPatchError(f"a TIFF of more than {MAX_PAGES} pages")


def _described(image: Image.Image) -> tuple[int, int]:
    """Channels that lie on pages of their own, and pages in all, as writers describe them."""
    text = image.tag_v2.get(_DESCRIPTION, "")  # type: ignore[attr-defined]
    if not isinstance(text, str):
        return 1, 1
    if text.startswith("ImageJ="):
        channels, images = (
            _number(rf"^{name}=(\d{{1,9}})", text) for name in ("channels", "images")
        )
        return channels, max(channels, images)
    if text.startswith("{") and _TRUNCATED in text:  # tifffile's way to write a stack as one page
        raise CorruptPatchError("a TIFF that holds a stack behind its first page")
    if "<Pixels" not in text or "SizeC" not in text:
        return 1, 1
    return _described_by_ome(text)


def _described_by_ome(text: str) -> tuple[int, int]:
    pixels, *_ = _attributes("Pixels", text)
    sizes = {axis: _number(rf'\bSize{axis}\s*=\s*"(\d{{1,9}})"', pixels) for axis in "CZT"}
    samples = _number(r'\bSamplesPerPixel\s*=\s*"(\d{1,9})"', text)
    channels = max(1, sizes["C"] // samples)
    if channels > 1 and not all(map(_is_in_order, _attributes("TiffData", text))):
        raise CorruptPatchError("an OME-TIFF whose channels do not follow each other")
    return channels, channels * sizes["Z"] * sizes["T"]


def _attributes(element: str, text: str) -> list[str]:
    """What stands in each tag of an element; in time that grows with the text alone."""
    return [part.partition(">")[0] for part in text.split(f"<{element}")[1:]]


def _is_in_order(tiff_data: str) -> bool:
    """Whether a plane lies on the page of its number, where OME names both."""
    page, channel = (re.search(rf'\b{name}\s*=\s*"(\d+)"', tiff_data) for name in ("IFD", "FirstC"))
    return not page or not channel or page[1] == channel[1]


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    return max(1, int(found[1])) if found else 1
