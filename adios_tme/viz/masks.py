"""Pictures of masks: per row the image, each mask, and all masks as one overlay.

Shape legend: B images, N masks, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from adios_tme.viz.figure import image_grid, save_figure
from adios_tme.viz.palette import colour

#: Share of colour in the overlay; the rest is the image in grey.
OVERLAY_WEIGHT = 0.55


def plot_masks(images_BCHW: Tensor, masks_BNHW: Tensor, path: Path, title: str = "") -> None:
    """Draw images and their masks as one picture.

    Args:
        images_BCHW: RGB, uint8 or float in [0, 1].
        masks_BNHW: Soft masks of the same images, in [0, 1].
        path: PNG or SVG file; its folder is made.
        title: Stands above the picture.

    Raises:
        ConfigError: If the file's suffix is neither.
        OSError: If the file cannot be written.
        ValueError: If images and masks differ in number or size.
    """
    save_figure(mask_figure(images_BCHW, masks_BNHW, title), path)


def mask_figure(images_BCHW: Tensor, masks_BNHW: Tensor, title: str = "") -> Figure:
    """The picture that `plot_masks` writes."""
    if len(images_BCHW) != len(masks_BNHW) or images_BCHW.shape[2:] != masks_BNHW.shape[2:]:
        raise ValueError(
            f"images {tuple(images_BCHW.shape)} and masks {tuple(masks_BNHW.shape)} differ."
        )
    images_BHWC = images_BCHW.cpu().permute(0, 2, 3, 1).numpy()
    if images_BHWC.dtype == np.uint8:
        images_BHWC = images_BHWC / 255
    masks = masks_BNHW.float().cpu().numpy()
    num_rows, num_masks = masks.shape[:2]
    titles = ["Image", *(f"Mask {number + 1}" for number in range(num_masks)), "Overlay"]
    colours = ["black", *(colour(number) for number in range(num_masks)), "black"]
    figure, cells = image_grid(num_rows, titles, title, colours)
    for row, (image_HWC, masks_NHW) in enumerate(zip(images_BHWC, masks, strict=True)):
        cells[row][0].imshow(image_HWC)
        for cell, mask_HW in zip(cells[row][1:-1], masks_NHW, strict=True):
            cell.imshow(mask_HW, cmap="gray", vmin=0, vmax=1)
        cells[row][-1].imshow(overlay(image_HWC, masks_NHW))
    return figure


def overlay(
    image_HWC: NDArray[np.floating], masks_NHW: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Each pixel in the colour of its masks, over the image in grey; RGB in [0, 1]."""
    colours_NC = np.array([to_rgb(colour(number)) for number in range(len(masks_NHW))])
    tint_HWC = np.einsum("nhw,nc->hwc", masks_NHW, colours_NC)
    grey_HWC = image_HWC.mean(axis=2, keepdims=True)
    mixed = (1 - OVERLAY_WEIGHT) * grey_HWC + OVERLAY_WEIGHT * tint_HWC
    clipped: NDArray[np.floating] = mixed.clip(0, 1)
    return clipped
