"""MoNuSeg as it is released: TIFF images with Aperio XML outlines (Kumar et al. 2017 and 2020).

Shape legend: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from skimage.draw import ellipse, polygon

from adios_tme.benchmark.nuclei.label_folder import Accounts, LabelledImage, Names, read_image
from adios_tme.data.images import files_in
from adios_tme.data.junk import is_junk
from adios_tme.data.left_out import LeftOut, Reason
from adios_tme.errors import DataError

SUFFIXES = (".tif", ".tiff")
OUTLINES = ".xml"
FEWEST_VERTICES = 3
#: Kinds of regions in Aperio's files; 3 is an arrow and 4 a ruler.
_POLYGON, _RECTANGLE, _ELLIPSE = "0", "1", "2"
#: Vertices that stand for the box around a region; with more it is a polygon.
_CORNERS_OF_BOX = {_POLYGON: (), _RECTANGLE: (2,), _ELLIPSE: (2, 3, 4)}
Places = tuple[NDArray[np.int64], NDArray[np.int64]]

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
        self.accounts = Accounts()
        files = sorted(p for p in path.rglob("*") if p.is_file())
        junk = {p for p in files if is_junk(str(p.relative_to(path)))}
        images = [p for p in files if p.suffix.lower() in SUFFIXES and p not in junk]
        if not images:
            names = sorted(p.name for p in path.iterdir())[:5] if path.is_dir() else []
            raise DataError(
                f"{path}: holds no image of MoNuSeg. Expected {LAYOUT}; "
                f"found {', '.join(names) or 'nothing'}."
            )
        names_in = cache(lambda folder: Names(files_in(folder) if folder.is_dir() else ()))
        self._pairs = [(image, _outlines_of(image, names_in)) for image in images]
        self.parts = [image.parent.name for image in images]
        self._count_others({p for p in files if p not in junk}, junk)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> LabelledImage:
        image, outlines = self._pairs[number]
        pixels = read_image(image)
        height, width = pixels.shape[:2]
        labels = draw_outlines(outlines, height, width, self.accounts.of(number))
        return LabelledImage(image.stem, pixels, labels)

    def _count_others(self, files: set[Path], junk: set[Path]) -> None:
        others = files.difference(*self._pairs)
        outlines = {p for p in others if p.suffix.lower() == OUTLINES}
        reasons: dict[Reason, set[Path]] = {
            "junk": junk,
            "label_alone": outlines,
            "neither_tiff_nor_xml": others - outlines,
        }
        for reason, paths in reasons.items():
            names = sorted(str(p.relative_to(self.path)) for p in paths)
            self.accounts.opening.add(reason, names, len(names))


def draw_outlines(
    path: Path, height: int, width: int, left_out: LeftOut | None = None
) -> NDArray[np.int32]:
    """Fill the regions of an Aperio XML file; a later region lies over an earlier one.

    Polygons, rectangles and ellipses are nuclei. A hole (``NegativeROA``) is cut from every nucleus
    that reaches beyond it, so that a nucleus inside a hole stays.

    Args:
        path: The file.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        left_out: Where regions that are not drawn are counted.

    Returns:
        (H, W) ids from 1 on.

    Raises:
        DataError: If the file is not such XML, or not one region can be drawn.
    """
    account = LeftOut() if left_out is None else left_out
    labels = np.zeros((height, width), dtype=np.int32)
    holes = []
    try:
        root = ElementTree.parse(path).getroot()
        for number, region in enumerate(root.iter("Region"), start=1):
            places = _places_of(region, labels.shape, f"{path.name} {number}", account)
            if places is None:
                continue
            if region.get("NegativeROA", "0") == "1":
                holes.append(places)
            else:
                labels[places] = number
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: is not Aperio XML with Region/Vertices/Vertex[@X, @Y] ({error}). "
            f"Download it again."
        ) from error
    if not labels.any():
        raise DataError(
            f"{path}: holds no outline of a nucleus in this image (it is <{root.tag}>). Download "
            f"it again, or remove it and its image."
        )
    for places in holes:
        _cut(labels, places)
    return labels


def _places_of(
    region: ElementTree.Element, shape: tuple[int, ...], name: str, left_out: LeftOut
) -> Places | None:
    """Rows and columns of the pixels that a region covers; None, counted, if it is not drawn."""
    corners = np.array(
        [(float(v.attrib["Y"]), float(v.attrib["X"])) for v in region.iter("Vertex")]
    )
    if not np.isfinite(corners).all():
        raise ValueError(f"{name} has a vertex that is no number")
    kind = region.get("Type", _POLYGON)
    is_box = len(corners) in _CORNERS_OF_BOX.get(kind, ())
    reason: Reason = "outside_image"
    if kind not in _CORNERS_OF_BOX:
        reason = "other_shape"
    elif len(corners) < FEWEST_VERTICES and not is_box:
        reason = "few_vertices"
    else:
        places = _fill(corners, kind if is_box else _POLYGON, shape)
        if places[0].size:
            return places
    left_out.add(reason, [name])
    return None


def _fill(corners: NDArray[np.float64], kind: str, shape: tuple[int, ...]) -> Places:
    (top, left), (bottom, right) = corners.min(axis=0), corners.max(axis=0)
    if kind == _ELLIPSE:
        centre = (top + bottom) / 2, (left + right) / 2
        inside: Places = ellipse(*centre, (bottom - top) / 2, (right - left) / 2, shape)
        return inside
    rows, columns = corners.T
    if kind == _RECTANGLE:
        rows, columns = [top, top, bottom, bottom], [left, right, right, left]
    filled: Places = polygon(rows, columns, shape)
    return filled


def _cut(labels: NDArray[np.int32], hole: Places) -> None:
    """Take a hole out of every nucleus that reaches beyond it."""
    inside = np.bincount(labels[hole], minlength=int(labels.max()) + 1)
    everywhere = np.bincount(labels.ravel(), minlength=len(inside))
    labels[hole] = np.where((inside == everywhere)[labels[hole]], labels[hole], 0)


def _outlines_of(image: Path, names_in: Callable[[Path], Names]) -> Path:
    name = image.stem + OUTLINES
    for folder in (image.parent, image.parent.parent / "Annotations"):
        found = names_in(folder).find(name)
        if found is not None:
            return folder / found
    raise DataError(f"{image}: has no outlines. Expected {LAYOUT}; add {name}.")
