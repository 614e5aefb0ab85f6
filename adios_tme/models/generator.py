"""The mask model as others use it: pixels in, masks at the same size out.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adios_tme.models.layers import Normalise, check_batch, fit_to_side, unit_range


class MaskGenerator(nn.Module):
    """A mask network with its image size and normalisation.

    Args:
        network: Draws masks (B, N, S, S) on normalised images of side S.
        img_size: That side in pixels.
        mean: Channel means of the normalisation, 0 to 1.
        std: Channel standard deviations, 0 to 1.
    """

    def __init__(
        self, network: nn.Module, img_size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self.img_size = img_size
        self.normalise = Normalise(mean, std)

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Draw masks on RGB images.

        Args:
            images_BCHW: uint8, or float in [0, 1], of any size; shrunk or enlarged to the
                network's size and the masks back. Both give the same masks.

        Returns:
            (B, N, H, W) float32 on the images' device; they add up to one over N.

        Raises:
            ValueError: If images are no such batch, of another number format or range, or not
                finite.
        """
        check_batch(images_BCHW)
        size = images_BCHW.shape[-2:]
        images = unit_range(images_BCHW)
        if images_BCHW.is_floating_point() and not torch.compiler.is_compiling():
            _check_range(images)
        masks: Tensor = self.network(self.normalise(fit_to_side(images, self.img_size)))
        if size != masks.shape[-2:]:
            masks = F.interpolate(masks, size, mode="bilinear", antialias=True)
        return masks


def _check_range(images_BCHW: Tensor) -> None:
    if not images_BCHW.numel():
        return
    lowest, highest = (float(end) for end in torch.aminmax(images_BCHW))  # host sync
    if not (lowest >= 0 and highest <= 1):  # also where one is not a number
        raise ValueError(
            f"images reach from {lowest:g} to {highest:g}, expected 0 to 1 for floating point. "
            f"Divide by 255, undo a normalisation, clamp(0, 1), or give torch.uint8."
        )
