"""A prior from the stain: what takes up more haematoxylin than the rest of its image is a nucleus.

Shape legend: B images, N masks, H x W pixels, P = H * W, L levels of an amount.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Standard deviation in pixels of the Gaussian that the amounts are smoothed with.
SMOOTHING = 1.0
#: Levels between an image's least and greatest amount among which Otsu's threshold is sought.
NUM_LEVELS = 64
#: How wide the target rises around the threshold, as a share of the distance of the two classes.
SOFTNESS = 0.1
#: Smallest probability whose logarithm is taken.
SMALLEST = 1e-4


def stain_penalty(masks_BNHW: Tensor, haematoxylin_BHW: Tensor) -> Tensor:
    """Cross-entropy of the first mask with a soft threshold on the image's haematoxylin.

    The target is a sigmoid around Otsu's threshold (1979) on the smoothed amounts of each image.
    An image counts by how well the threshold parts it: with the share of the variance that lies
    between the two classes, Otsu's own criterion. The other masks are free to share the rest.

    Args:
        masks_BNHW: Soft masks; they add up to one.
        haematoxylin_BHW: Amounts of haematoxylin of the same pixels, in natural optical density.

    Returns:
        Scalar in nats a pixel, averaged over images.
    """
    target_BHW, weight_B = soft_target(haematoxylin_BHW)
    first_BHW = masks_BNHW[:, 0].float().clamp(SMALLEST, 1 - SMALLEST)
    entropy_BHW = F.binary_cross_entropy(first_BHW, target_BHW, reduction="none")
    return (weight_B * entropy_BHW.mean(dim=(1, 2))).mean()


def soft_target(haematoxylin_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """What the first mask should be, and how much each image counts.

    Args:
        haematoxylin_BHW: Amounts of haematoxylin.

    Returns:
        Targets (B, H, W) and weights (B,), both from 0 to 1; a flat image weighs nothing.
    """
    smooth_BHW = _smooth(haematoxylin_BHW.float())
    threshold_B, apart_B, separability_B = otsu(smooth_BHW.flatten(1))
    width_B = (SOFTNESS * apart_B).clamp(min=SMALLEST)
    above_BHW = (smooth_BHW - threshold_B[:, None, None]) / width_B[:, None, None]
    return above_BHW.sigmoid(), separability_B


def otsu(amount_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Otsu's threshold of each row.

    Returns:
        Thresholds, the distance of the two classes' means, and the share of the variance that lies
        between them; (B,) each. A flat row has no distance and no share.
    """
    low_B1 = amount_BP.amin(dim=1, keepdim=True)
    span_B1 = (amount_BP.amax(dim=1, keepdim=True) - low_B1).clamp(min=SMALLEST)
    level_BP = ((amount_BP - low_B1) / span_B1 * NUM_LEVELS).long().clamp(max=NUM_LEVELS - 1)
    # Counts are whole numbers: their sum is the same in any order.
    counts_BL = amount_BP.new_zeros(len(amount_BP), NUM_LEVELS)
    counts_BL.scatter_add_(1, level_BP, torch.ones_like(amount_BP))
    share_BL = counts_BL / amount_BP.shape[1]
    centre_L = (torch.arange(NUM_LEVELS, device=amount_BP.device) + 0.5) / NUM_LEVELS
    below_BL = share_BL.cumsum(dim=1)
    moment_BL = (share_BL * centre_L).cumsum(dim=1)
    mean_B1 = moment_BL[:, -1:]
    room_BL = (below_BL * (1 - below_BL)).clamp(min=SMALLEST**2)
    between_BL = (mean_B1 * below_BL - moment_BL).square() / room_BL
    # The last level leaves nothing above it.
    best_B1 = between_BL[:, :-1].argmax(dim=1, keepdim=True)
    between_B1, room_B1 = between_BL.gather(1, best_B1), room_BL.gather(1, best_B1)
    variance_B1 = (share_BL * (centre_L - mean_B1).square()).sum(dim=1, keepdim=True)
    threshold_B1 = low_B1 + span_B1 * (best_B1 + 1) / NUM_LEVELS
    apart_B1 = span_B1 * (between_B1 / room_B1).sqrt()
    separability_B1 = between_B1 / variance_B1.clamp(min=SMALLEST**2)
    return threshold_B1[:, 0], apart_B1[:, 0], separability_B1[:, 0]


def _smooth(amount_BHW: Tensor) -> Tensor:
    reach = round(3 * SMOOTHING)
    steps = torch.arange(-reach, reach + 1, device=amount_BHW.device)
    weight_K = torch.softmax(-0.5 * (steps / SMOOTHING).square(), dim=0)
    padded = F.pad(amount_BHW.unsqueeze(1), (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, weight_K[None, None, None])
    return F.conv2d(across, weight_K[None, None, :, None]).squeeze(1)
