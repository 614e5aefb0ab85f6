"""Pixels brought to the size that a model takes.

Shape legend: B images, H x W pixels, S image side, 3 channels.
"""

from __future__ import annotations

import torch

from adios_tme.data.decode import Pixels


def resize_image(pixels: Pixels, img_size: int) -> Pixels:
    """Resize (H, W, 3) to (S, S, 3) by an antialiased bicubic filter.

    torch's filter for uint8 is Pillow's, four times as fast: no value differs by more than one.
    """
    if pixels.shape[:2] == (img_size, img_size):
        return pixels
    writable = pixels if pixels.flags.writeable else pixels.copy()  # torch asks for it
    image_1CHW = torch.from_numpy(writable).permute(2, 0, 1).unsqueeze(0)
    resized: Pixels = resize_images(image_1CHW, img_size)[0].permute(1, 2, 0).numpy()
    return resized


def resize_images(images_BCHW: torch.Tensor, img_size: int) -> torch.Tensor:
    """Resize uint8 images (B, 3, H, W) to (B, 3, S, S), on whichever device they are."""
    if images_BCHW.shape[-2:] == (img_size, img_size):
        return images_BCHW
    # Only the CPU has a kernel for uint8; elsewhere the same filter works on floats.
    exact = images_BCHW if images_BCHW.device.type == "cpu" else images_BCHW.float()
    resized = torch.nn.functional.interpolate(
        exact, (img_size, img_size), mode="bicubic", antialias=True
    )
    return resized if resized.dtype == torch.uint8 else resized.round().clamp(0, 255).byte()
