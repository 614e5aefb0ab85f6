"""What is known of an encoder, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Found:
    """An encoder and what its images must be."""

    network: nn.Module
    img_size: int
    """Side in pixels."""
    mean: tuple[float, ...]
    """Of the channels, 0 to 1; what images are normalised with."""
    std: tuple[float, ...]
    has_class_token: bool
