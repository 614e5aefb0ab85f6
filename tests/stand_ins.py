"""Tiny stand-ins for what the documents name: a run, patches, slides, labelled images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from adios_tme.data.synthetic import render_tissue, write_sample
from adios_tme.training.loop import run_training
from tests.factories import make_archive, tiny_config
from tests.slides import make_slide, on_glass, stained

NUM_IMAGES = 4
SIDE = 64
SQUARE = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((9, 9), (30, 9), (30, 30), (9, 30)))


def run(folder: Path) -> None:
    """Two iterations of a tiny network, with pictures and a checkpoint."""
    data = folder.with_name("patches_of_the_run")
    patches(data)
    config = tiny_config(data, folder, total_iterations=2, viz_freq=1)
    run_training(config)


def patches(folder: Path, side: int = SIDE) -> None:
    """An archive for each of two slides."""
    for number in (1, 2):
        make_archive(folder / f"slide_{number:03d}.zip", NUM_IMAGES, side, seed=number)


def named_patches(folder: Path) -> None:
    """Images named SLIDE_X_Y, with a size in the name of the slide."""
    folder.mkdir()
    for number in range(NUM_IMAGES):
        name = f"slide_448_{number * 448}_0.png"
        Image.fromarray(stained(SIDE, SIDE, number)).save(folder / name)


def large_patches(folder: Path) -> None:
    """Archives whose patches can be cut into smaller ones."""
    patches(folder, side=240)


def images(folder: Path) -> None:
    """Pictures of no data set."""
    folder.mkdir()
    for number in range(NUM_IMAGES):
        Image.fromarray(stained(SIDE, SIDE, number)).save(folder / f"{number}.png")


def classes(folder: Path) -> None:
    """A folder of pictures for each of two classes."""
    folder.mkdir()
    for name in ("normal", "tumor"):
        images(folder / name)


def labelled(folder: Path) -> None:
    """Images with labels, as `--labels` takes them."""
    sample = folder.with_name(f"{folder.name}_sample")
    paths = write_sample(
        sample, num_slides=1, patches_per_slide=1, num_labelled=NUM_IMAGES, size_px=SIDE
    )
    paths.nuclei.rename(folder)


def pannuke(folder: Path) -> None:
    """Two folds of PanNuke."""
    for fold in (1, 2):
        pixels, ids = render_tissue(NUM_IMAGES, SIDE, seed=fold)
        masks = np.zeros((*ids.shape, 6))
        masks[..., 0] = ids
        for kind, array in (("images", pixels), ("masks", masks)):
            place = folder / f"Fold {fold}" / kind / f"fold{fold}"
            place.mkdir(parents=True)
            np.save(place / f"{kind}.npy", array)


def monuseg(folder: Path) -> None:
    """MoNuSeg with one nucleus an image."""
    folder.mkdir()
    text = f"<Annotations><Region><Vertices>{SQUARE}</Vertices></Region></Annotations>"
    for number in range(NUM_IMAGES):
        Image.fromarray(stained(SIDE, SIDE, number)).save(folder / f"{number}.tif")
        (folder / f"{number}.xml").write_text(text)


def slides(folder: Path) -> None:
    """A slide at 0.25 microns per pixel with a piece of tissue."""
    pixels = on_glass(1280, 1536, (slice(128, 1152), slice(128, 1408)))
    make_slide(folder / "slide_007.tif", pixels, num_levels=3)


def coordinates(folder: Path) -> None:
    """Tiles of that slide as TRIDENT finds them."""
    folder.mkdir()
    with h5py.File(folder / "slide_007_patches.h5", "w") as file:
        places = np.array([[256, 256], [768, 256], [256, 640], [768, 640]])
        file.create_dataset("coords", data=places).attrs["patch_size_level0"] = 512


def scales(file: Path) -> None:
    """The table of scales that the page on slides shows."""
    file.write_text("wsi,mpp\nslide_007.tif,0.2527\n")


def one_archive(file: Path) -> None:
    """The patches of one slide."""
    make_archive(file, NUM_IMAGES, SIDE)


def patch(file: Path) -> None:
    """A picture."""
    Image.fromarray(stained(SIDE, SIDE)).save(file)


#: By the names that the documents have.
MAKERS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("run", "run_a", "run_b", "tissue_run"), run),
    **dict.fromkeys(("patches", "cohort_a", "cohort_b", "zips"), patches),
    **dict.fromkeys(("tiles", "../shared/data/tiles"), large_patches),
    **dict.fromkeys(("images", "some_images", "folder_of_images"), images),
    **dict.fromkeys(("labelled", "folder"), labelled),
    **dict.fromkeys(("pannuke", "PanNuke"), pannuke),
    **dict.fromkeys(("monuseg", "MoNuSeg"), monuseg),
    "classes": classes,
    "slides": slides,
    "coords": coordinates,
    "mpp.csv": scales,
    "patch.png": patch,
    "slide_001.zip": one_archive,
}
#: On pages that tell of another kind.
OF_PAGES = {("docs/data.md", "patches"): named_patches}


class StandIns:
    """Stand-ins that are made once, and copied to where they are needed.

    Args:
        folder: Where they are made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def give(self, names: Iterable[str], place: Path, page: str) -> None:
        """Copy those of some names on a page into a folder."""
        for name in names:
            source = self._made(OF_PAGES.get((page, name), MAKERS[name]))
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copyfile(source, target)

    def _made(self, maker: Callable[[Path], None]) -> Path:
        path = self._folder / maker.__name__
        if not path.exists():
            maker(path)
        return path
