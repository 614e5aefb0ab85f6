"""Masks that change where the tissue does.

Shape legend: B images, N masks, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor

#: k of the formula, per unit of natural optical density. At the borders of nuclei, seen at 0.44
#: microns a pixel, density changes by 0.10 from one pixel to the next (median over 26 labelled
#: images), elsewhere by 0.03: weights of 0.4 and 0.8.
SHARPNESS = 10.0


def edge_penalty(masks_BNHW: Tensor, density_BHW: Tensor) -> Tensor:
    """Total variation of masks, weighed down where the optical density has an edge.

    ``sum |grad m| exp(-k |grad OD|)`` over masks and both directions, averaged over the pairs of
    neighbours: a contour of a mask costs least along the contours of the tissue (edge-aware
    smoothness, Heise et al. 2013; Godard et al. 2017, arXiv:1609.03677, equation 3).

    Args:
        masks_BNHW: Soft masks.
        density_BHW: Natural optical density of the same pixels, mean of the colours.

    Returns:
        Scalar, dimensionless, averaged over images.
    """
    masks_BNHW = masks_BNHW.float()
    density_B1HW = density_BHW.unsqueeze(1)
    down, right = (
        masks_BNHW.diff(dim=axis).abs() * (-SHARPNESS * density_B1HW.diff(dim=axis).abs()).exp()
        for axis in (-2, -1)
    )
    return down.mean(dim=(0, 2, 3)).sum() + right.mean(dim=(0, 2, 3)).sum()
