"""Images in the forms that people have them, as one batch, and results in the same form.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from adios_tme.models.layers import check_batch, unit_range

AnyImages: TypeAlias = Tensor | NDArray[Any] | Image.Image
"""RGB, one or a batch: a torch tensor (3, H, W) or (B, 3, H, W), a NumPy array (H, W, 3) or
(B, H, W, 3), or one Pillow image; uint8, or floating point from 0 to 1."""


@dataclass(frozen=True)
class Images:
    """Images that were given, as a batch, and the form that they were given in."""

    batch: Tensor
    """(B, 3, H, W) uint8 or floating point, on the device that they came on."""
    given: AnyImages

    @property
    def is_single(self) -> bool:
        """Whether one image was given, without a batch axis."""
        return isinstance(self.given, Image.Image) or self.given.ndim == 3

    def unit(self) -> Tensor:
        """The batch as float32 from 0 to 1."""
        return unit_range(self.batch)

    def check_range(self) -> None:
        """Raise ValueError if floating point is not within 0 to 1; uint8 cannot be outside."""
        if not self.batch.is_floating_point() or not self.batch.numel():
            return
        lowest, highest = (float(end) for end in torch.aminmax(self.batch))  # host sync
        if not (lowest >= 0 and highest <= 1):  # also where one is not a number
            raise ValueError(
                f"images reach from {lowest:g} to {highest:g}, expected 0 to 1 for floating point. "
                f"Divide by 255, undo a normalisation, clamp(0, 1), or give torch.uint8."
            )

    def results_like(self, results: Tensor) -> Tensor | NDArray[Any]:
        """Results of the batch as what was given is.

        NumPy for NumPy and Pillow; no batch axis for one image.
        """
        found = results[0] if self.is_single else results
        if isinstance(self.given, Tensor):
            return found.to(self.given.device)
        return found.cpu().numpy()

    def images_like(self, images_BCHW: Tensor) -> AnyImages:
        """Images from 0 to 1 as what was given is: the same kind, number format and device."""
        pixels = images_BCHW[0] if self.is_single else images_BCHW
        if self.batch.dtype == torch.uint8:
            pixels = (pixels * 255).round().to(torch.uint8)
        if isinstance(self.given, Tensor):
            return _wrapped(pixels.to(self.given.device, self.given.dtype), self.given)
        channels_last = pixels.movedim(-3, -1).cpu().numpy()
        if isinstance(self.given, Image.Image):
            return Image.fromarray(channels_last)
        return channels_last.astype(self.given.dtype)


def take_images(given: AnyImages) -> Images:
    """Images as a batch that shares the memory of a tensor; the range of floats is not looked at.

    Raises:
        ValueError: If they are none of `AnyImages`.
    """
    if isinstance(given, Tensor):
        batch = given.as_subclass(Tensor)
        if batch.ndim == 3 and len(batch) == 3:
            batch = batch[None]
    elif isinstance(given, np.ndarray):
        batch = _of_array(given)
    elif isinstance(given, Image.Image):
        if given.mode != "RGB":
            raise ValueError(
                f'the image is of mode {given.mode}, expected RGB. Use image.convert("RGB").'
            )
        batch = _of_array(np.asarray(given))
    else:
        raise ValueError(
            f"images are a {type(given).__name__}, expected a torch tensor, a NumPy array or a "
            f"Pillow image. Stack several images of one size: torch.stack(images)."
        )
    check_batch(batch)
    if 0 in batch.shape[2:]:
        raise ValueError(f"images are {tuple(batch.shape)}, without a pixel. Give larger ones.")
    if not batch.is_floating_point():
        unit_range(batch[:0])  # refuses what is not uint8
    return Images(batch, given)


def _of_array(array: NDArray[Any]) -> Tensor:
    """(B, 3, H, W) of pixels with the channels last.

    Raises:
        ValueError: If the array has another shape or number format.
    """
    if array.ndim not in (3, 4) or array.shape[-1] != 3:
        advice = "Give RGB images."
        if array.ndim in (3, 4) and array.shape[-3] == 3:
            advice = "Put the channels last: np.moveaxis(images, -3, -1)."
        elif array.shape[-1:] == (4,):
            advice = "Drop the alpha channel: images[..., :3]."
        raise ValueError(f"images are {array.shape}, expected (H, W, 3) or (B, H, W, 3). {advice}")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ValueError(
            f"images are {array.dtype}, expected uint8, or floating point from 0 to 1. "
            f"Use .astype(np.uint8) where they are 0 to 255."
        )
    number = np.uint8 if array.dtype == np.uint8 else np.float32
    # A copy: torch takes no arrays that are read-only, reversed or of the other byte order.
    pixels = torch.from_numpy(np.array(array, dtype=number, order="C"))
    return (pixels if array.ndim == 4 else pixels[None]).movedim(-1, 1)


def _wrapped(images: Tensor, like: Tensor) -> Tensor:
    """Images as torchvision's, where that is what was given, so that its transforms know them."""
    if type(like) is Tensor:
        return images
    from torchvision import tv_tensors

    is_known = isinstance(like, tv_tensors.TVTensor)
    wrapped: Tensor = tv_tensors.wrap(images, like=like) if is_known else images
    return wrapped
