"""Masked views of an image as a transform in other trainers' pipelines.

Shape legend: B images, N masks, K crops of each masked view, C channels, H x W pixels, S crop side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from adios_tme.config.model import Fill
from adios_tme.masking.views import apply_masks, random_crops

if TYPE_CHECKING:
    from adios_tme.models.images import AnyImages
    from adios_tme.models.mask_models.generator import MaskGenerator


class MaskAugment:
    """The N masked views of an image, or crops of them, as a list of images like it.

    A view is x * (1 - m) + f * m, with the soft mask m as the mask model drew it and a fill f.
    It takes what `MaskGenerator` takes, before any normalisation: a Pillow image, an array or a
    tensor, torchvision's ``tv_tensors.Image`` too, one image or a batch on any device. Each view is
    of the same kind, number format and device; a batch gives a list of N batches.

    In workers of a ``DataLoader`` the masks are drawn on the worker's CPU. On a GPU, apply it to
    batches after the loader, with the mask model there.

    Args:
        masks: The mask model; set to evaluation.
        crops_per_mask: K random resized crops of each masked view instead of the view itself; 0
            gives the views.
        crop_size: Side of the crops in pixels; absent: the shorter side of the image.
        fill: What stands in the hole: ``zero`` is the mean colour of the mask model's data, which
            their normalisation makes zero; or the image's ``mean`` colour, its ``blur``, ``noise``.
        view_transform: Applied to each view, such as a pipeline's own colours and normalisation.
        generator: Source of crops and noise, so that they repeat; absent: torch's own, which
            ``torch.manual_seed`` and a loader's ``generator`` seed. In a worker it is seeded anew
            with its own seed and the worker's, so that no two workers or epochs draw the same.

    Raises:
        ValueError: If there is a crop size without crops, a number is too small, or there is no
            such fill.

    Example:
        >>> import torch
        >>> from adios_tme import AdiosUNet, MaskAugment, MaskGenerator
        >>> masks = MaskGenerator(AdiosUNet(32, num_masks=3), 32, (0.7,) * 3, (0.2,) * 3)
        >>> views = MaskAugment(masks)(torch.rand(3, 48, 48))
        >>> len(views), views[0].shape
        (3, torch.Size([3, 48, 48]))
    """

    def __init__(
        self,
        masks: MaskGenerator,
        *,
        crops_per_mask: int = 0,
        crop_size: int | None = None,
        fill: Fill = "zero",
        view_transform: Callable[[Any], Any] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if crops_per_mask < 0:
            raise ValueError(f"crops_per_mask={crops_per_mask}, expected 0 or more.")
        if crop_size is not None and (crops_per_mask == 0 or crop_size < 1):
            raise ValueError(
                f"crop_size={crop_size} with crops_per_mask={crops_per_mask}. "
                f"Give crops_per_mask=1 or more and a size of 1 or more, or drop it."
            )
        if fill not in get_args(Fill):
            raise ValueError(f"fill={fill!r} is unknown. Use one of {', '.join(get_args(Fill))}.")
        self.masks = masks.eval()
        self.crops_per_mask = crops_per_mask
        self.crop_size = crop_size
        self.fill: Fill = fill
        self.view_transform = view_transform
        self.generator = generator
        self._worker_seed: int | None = None

    @torch.no_grad()
    def __call__(self, images: AnyImages) -> list[Any]:
        """Views or crops, mask by mask: N of them, or N * K.

        Raises:
            ValueError: If `MaskGenerator` would refuse the images, or its device cannot be used in
                a worker.

        Example:
            >>> import torch
            >>> from adios_tme import MaskAugment, load_mask_model
            >>> augment = MaskAugment(load_mask_model(run), crops_per_mask=2, crop_size=24)
            >>> crops = augment(torch.randint(0, 256, (5, 3, 48, 48), dtype=torch.uint8))
            >>> len(crops), crops[0].shape, crops[0].dtype
            (6, torch.Size([5, 3, 24, 24]), torch.uint8)
        """
        self._prepare_worker()
        given = self.masks.take(images)
        masks_BNHW = self.masks(given.batch)
        views = [given.images_like(view) for view in self._views(given.unit(), masks_BNHW)]
        return [self.view_transform(view) for view in views] if self.view_transform else views

    def _views(self, images_BCHW: Tensor, masks_BNHW: Tensor) -> list[Tensor]:
        """Batches (B, 3, H, W) or (B, 3, S, S) from 0 to 1."""
        num_images, size = len(images_BCHW), images_BCHW.shape[-2:]
        # Fills are those of training, which sees normalised images: zero is the mean colour.
        centre = self.masks.normalise.mean.to(images_BCHW)
        hidden = apply_masks(images_BCHW - centre, masks_BNHW, self.fill, generator=self.generator)
        views = (hidden + centre).clamp(0, 1)
        if self.crops_per_mask == 0:
            return list(views.split(num_images))
        side = self.crop_size or min(size)
        each = [
            random_crops(views, side, self.generator).split(num_images)
            for _ in range(self.crops_per_mask)
        ]
        return [crop for crops_of_mask in zip(*each, strict=True) for crop in crops_of_mask]

    def _prepare_worker(self) -> None:
        """In a worker of a loader: seed the generator for it, once."""
        worker = get_worker_info()
        if worker is None:
            return
        device = self.masks.normalise.mean.device
        if device.type != "cpu":
            raise ValueError(
                f"the mask model is on {device}, which a DataLoader worker cannot use. Keep it on "
                f"the CPU there, or apply MaskAugment to batches on the device, after the loader."
            )
        if self.generator is not None and self._worker_seed != worker.seed:
            self._worker_seed = worker.seed
            mixed = hash((self.generator.initial_seed(), worker.seed))
            self.generator = torch.Generator().manual_seed(mixed & (2**63 - 1))
