"""What a run was trained on: counts, and some patches where they are still there."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

from adios_tme.config.data import DataConfig
from adios_tme.data.decode import Pixels
from adios_tme.data.index import DatasetIndex
from adios_tme.data.index_builder import index_path
from adios_tme.data.inspection import read_sample
from adios_tme.errors import AdiosError
from adios_tme.viz.contact_sheet import TILE_PX, contact_sheet
from adios_tme.viz.report.embedded import Embedded, embed
from adios_tme.viz.report.run_files import RunFiles

NUM_PATCHES = 25


class Root(NamedTuple):
    """One place that patches come from."""

    path: str
    weight: float
    num_patches: int | None
    """None where it is not there any more."""
    num_archives: int | None


class TrainingData(NamedTuple):
    """All of them, with a contact sheet."""

    roots: list[Root]
    sheet: Embedded | None


def training_data(run: RunFiles) -> TrainingData:
    """Look at what a run was trained on; what cannot be read any more is told as not there."""
    try:
        data = DataConfig.model_validate(run.settings["data"])
    except (ValidationError, LookupError):
        return TrainingData([], None)
    roots, images = [], []
    share = -(-NUM_PATCHES // max(1, len(data.roots)))
    for number, root in enumerate(data.roots):
        try:
            index = DatasetIndex.open(index_path(root.path, run.folder, number))
            images += read_sample(index, share)
            counts = (len(index), index.num_archives)
        except (AdiosError, OSError):
            counts = None
        roots.append(Root(str(root.path), root.weight, *(counts or (None, None))))
    return TrainingData(roots, _sheet(images[:NUM_PATCHES]) if images else None)


def _sheet(images: list[Pixels]) -> Embedded:
    """A contact sheet whose tiles are no larger than the patches."""
    longest = max(max(image.shape[:2]) for image in images)
    return embed(contact_sheet(images, min(TILE_PX, longest)))
