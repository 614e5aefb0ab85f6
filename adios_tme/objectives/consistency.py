"""Masks that know no left and right, as tissue does.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor


def mirrored(batch: Tensor) -> Tensor:
    """Images or masks (..., H, W), left and right exchanged; twice is as before."""
    return batch.flip(-1)


def consistency_penalty(masks_BNHW: Tensor, masks_of_mirrored_BNHW: Tensor) -> Tensor:
    """Squared difference between masks and those of the mirrored images, mirrored back.

    Consistency under transformations of the input (Sajjadi et al. 2016, arXiv:1606.04586), with a
    gradient through both.

    Args:
        masks_BNHW: Masks of the images.
        masks_of_mirrored_BNHW: Masks of the mirrored images, as they were drawn.

    Returns:
        Scalar, dimensionless: summed over masks, averaged over images and pixels.
    """
    apart_BNHW = masks_BNHW.float() - mirrored(masks_of_mirrored_BNHW).float()
    return apart_BNHW.square().mean(dim=(0, 2, 3)).sum()
