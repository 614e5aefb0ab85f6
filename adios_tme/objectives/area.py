"""What areas the masks should have: of each image or of the whole update, with or without targets.

Shape legend: B images, N masks, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adios_tme.config.objective import LossConfig
from adios_tme.distributed.collectives import gather_batch
from adios_tme.objectives.sparsity import areas, penalty_of_areas


class AreaPenalty(nn.Module):
    """The sparsity penalty, or the squared distance to targets, on areas as the settings have it.

    Args:
        loss: Settings.
    """

    targets: Tensor | None

    def __init__(self, loss: LossConfig) -> None:
        super().__init__()
        targets_N = None if loss.area_targets is None else torch.tensor(loss.area_targets)
        self.register_buffer("targets", targets_N, persistent=False)
        self.name = "sparsity_penalty" if targets_N is None else "area_penalty"
        self.needs_whole_batch = loss.area_over == "batch"
        self._kind = loss.sparsity_penalty_type

    def forward(self, masks_BNHW: Tensor, update_area_N: Tensor | None = None) -> Tensor:
        """Penalty on masks of this rank.

        Args:
            masks_BNHW: Soft masks.
            update_area_N: Mean areas over the update, as `update_area` gives them; absent: these
                masks are all that this rank has in it.

        Returns:
            Scalar, dimensionless, whose gradient is exact once ranks and passes are averaged.
        """
        area_BN = areas(masks_BNHW)
        if update_area_N is None:
            update_area_N = self.update_area([masks_BNHW])
        if update_area_N is not None:
            own_N = area_BN.mean(dim=0)
            # The value of all images with the gradient of one's own: how much of the mean is a
            # rank's and a pass's comes in where ranks and passes are averaged.
            area_BN = (update_area_N + (own_N - own_N.detach())).unsqueeze(0)
        if self.targets is None:
            return penalty_of_areas(area_BN, self._kind)
        return distance_to_targets(area_BN, self.targets)

    def update_area(self, masks_of_passes: Sequence[Tensor]) -> Tensor | None:
        """Mean areas (N,) over all ranks and passes; None where each image counts by itself.

        A collective where areas of the whole update count. The passes are of one size.
        """
        if not self.needs_whole_batch:
            return None
        area_PN = torch.stack([areas(masks.detach()).mean(dim=0) for masks in masks_of_passes])
        return gather_batch(area_PN.mean(dim=0, keepdim=True)).mean(dim=0)


def distance_to_targets(area_BN: Tensor, targets_N: Tensor) -> Tensor:
    """Squared distance of areas to targets, smallest to smallest and so on, averaged over rows.

    Of all ways to match them this is the one with the least distance, so no mask is told which
    target is its own; rows may be matched in different ways.

    Args:
        area_BN: Areas of the masks of each image, or one row of mean areas.
        targets_N: Targets in any order.

    Returns:
        Scalar, dimensionless, summed over masks.
    """
    apart_BN = area_BN.sort(dim=1).values - targets_N.to(area_BN.dtype).sort().values
    return apart_BN.square().sum(dim=1).mean()
