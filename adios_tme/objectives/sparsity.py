"""The penalty that keeps a mask from hiding nothing, or everything.

Shape legend: B images, N masks, H x W pixels.
"""

from __future__ import annotations

import math

from torch import Tensor

from adios_tme.config.objective import SparsityPenalty


def sparsity_penalty(masks_BNHW: Tensor, kind: SparsityPenalty = "inverse_sin") -> Tensor:
    """Penalty on the area of each mask, averaged over images and summed over masks.

    With a the mean of a mask over its pixels, ``inverse_sin`` is ``1 / (sin(pi a) + 1e-10)`` (Shi
    et al. 2022, arXiv:2201.13100), steep near 0 and 1; ``sinh_squared`` is
    ``sinh(pi |a - 1/2|)^2``, flat around one half.

    Args:
        masks_BNHW: Soft masks in [0, 1].
        kind: Which penalty.

    Returns:
        Scalar, dimensionless.

    Raises:
        ValueError: If the kind is unknown.

    Example:
        >>> import torch
        >>> from adios_tme import sparsity_penalty
        >>> half = torch.full((8, 1, 32, 32), 0.5)  # 8 images, one mask of half their area
        >>> float(sparsity_penalty(half)), float(sparsity_penalty(half, "sinh_squared"))
        (1.0, 0.0)
    """
    return penalty_of_areas(areas(masks_BNHW), kind)


def entropy_penalty(masks_BNHW: Tensor) -> Tensor:
    """Entropy over an image's masks of the softmax of their areas, averaged over images.

    The optional term of the ADIOS authors' code, which the mask model lowers so that areas differ.
    Theirs is summed over the images of a batch: a weight there is that many times as much here.

    Args:
        masks_BNHW: Soft masks in [0, 1].

    Returns:
        Scalar in nats.
    """
    log_share_BN = areas(masks_BNHW).log_softmax(dim=1)
    return -(log_share_BN.exp() * log_share_BN).sum(dim=1).mean()


def areas(masks_BNHW: Tensor) -> Tensor:
    """Share (B, N) of each image that each mask has, in single precision."""
    return masks_BNHW.float().mean(dim=(2, 3))


def penalty_of_areas(area_BN: Tensor, kind: SparsityPenalty) -> Tensor:
    """`sparsity_penalty` of masks with these areas.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "inverse_sin":
        penalty_BN = 1 / ((math.pi * area_BN).sin() + 1e-10)
    elif kind == "sinh_squared":
        penalty_BN = (math.pi * (area_BN - 0.5).abs()).sinh().square()
    else:
        raise ValueError(f"sparsity penalty {kind!r} is unknown. Use inverse_sin or sinh_squared.")
    return penalty_BN.mean(dim=0).sum()
