"""From the loader's memory to the device, beside the step before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from adios_tme.data.slots import SLOTS_IN_USE, Batch


def resizes_in_worker(resize_on: Literal["auto", "worker", "device"], device: torch.device) -> bool:
    """Whether workers resize patches, given the setting and the device."""
    return resize_on == "worker" or (resize_on == "auto" and device.type == "cpu")


class Prefetcher:
    """Takes batches to a device; on CUDA by a stream of its own, while the step before computes.

    Args:
        device: Where the images go.
        img_size: Side to which images are resized that are not yet of that size.
    """

    def __init__(self, device: torch.device, img_size: int) -> None:
        self.device = device
        self.img_size = img_size
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._under_way: deque[torch.cuda.Event] = deque()

    def take(self, batches: Iterator[Batch]) -> tuple[Batch, Tensor]:
        """The next batch, and its images on the device, uint8 (B, 3, S, S)."""
        while len(self._under_way) >= SLOTS_IN_USE:
            self._under_way.popleft().synchronize()  # its slot is filled again from now on
        batch = next(batches)
        if self._stream is None:
            return batch, batch.on(self.device, self.img_size)
        with torch.cuda.stream(self._stream):
            images = batch.on(self.device, self.img_size)
            copied = torch.cuda.Event()
            copied.record()
        self._under_way.append(copied)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(copied)
        images.record_stream(computing)
        return batch, images
