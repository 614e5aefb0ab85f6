"""MoNuSeg as it is released: TIFF images with Aperio XML outlines (Kumar et al. 2017 and 2020).

Shape legend: H x W pixels.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from adios_tme.benchmark.nuclei.label_folder import LabelledImage, read_image
from adios_tme.errors import DataError

SUFFIXES = (".tif", ".tiff")
FEWEST_VERTICES = 3
LAYOUT = "'Tissue Images/*.tif' with 'Annotations/*.xml', or *.tif and *.xml side by side"


class MoNuSeg:
    """Every image with its outlines below a folder.

    Args:
        path: Folder of the training or the test release, or one that holds them.

    Raises:
        DataError: If there is no image, or one has no outlines.
    """

    kind = "monuseg"
    microns_per_pixel: float | None = 0.25

    def __init__(self, path: Path) -> None:
        self.path = path
        images = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not images:
            found = sorted(p.name for p in path.iterdir())[:5] if path.is_dir() else []
            raise DataError(
                f"{path}: holds no image of MoNuSeg. Expected {LAYOUT}; "
                f"found {', '.join(found) or 'nothing'}."
            )
        self._pairs = [(image, _outlines_of(image)) for image in images]
        self.parts = [image.parent.name for image in images]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> LabelledImage:
        image, outlines = self._pairs[number]
        pixels = read_image(image)
        height, width = pixels.shape[:2]
        return LabelledImage(image.stem, pixels, draw_outlines(outlines, height, width))


def draw_outlines(path: Path, height: int, width: int) -> NDArray[np.int32]:
    """Fill the regions of an Aperio XML file; a later region lies over an earlier one.

    Args:
        path: The file.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        (H, W) ids from 1 on; regions of fewer than three vertices are skipped.

    Raises:
        DataError: If the file is not such XML.
    """
    labels = np.zeros((height, width), dtype=np.int32)
    try:
        regions = ElementTree.parse(path).iter("Region")
        for number, region in enumerate(regions, start=1):
            corners = [(float(v.attrib["Y"]), float(v.attrib["X"])) for v in region.iter("Vertex")]
            if len(corners) >= FEWEST_VERTICES:
                rows, columns = np.array(corners).T
                labels[polygon(rows, columns, labels.shape)] = number
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: is not Aperio XML with Region/Vertices/Vertex[@X, @Y] ({error}). "
            f"Download it again."
        ) from error
    return labels


def _outlines_of(image: Path) -> Path:
    beside = image.with_suffix(".xml")
    for path in (beside, image.parent.parent / "Annotations" / beside.name):
        if path.is_file():
            return path
    raise DataError(f"{image}: has no outlines. Expected {LAYOUT}; add {beside.name}.")
