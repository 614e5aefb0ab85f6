"""The projection that the contrastive loss looks through."""

from __future__ import annotations

import itertools

from torch import nn

from adios_tme.models.layers import draw_normal


class TMEHead(nn.Sequential):
    """MLP from class tokens (B, in_dim) to embeddings (B, output_dim).

    Linear layers with GELU between, no normalisation at the end.

    Args:
        in_dim: Width of the class token.
        hidden_dim: Width between the layers.
        output_dim: Width of the embedding.
        num_layers: Linear layers.

    Raises:
        ValueError: If there is no layer.

    Example:
        >>> import torch
        >>> from adios_tme import TMEHead
        >>> TMEHead(in_dim=192, hidden_dim=64, output_dim=16)(torch.randn(8, 192)).shape
        torch.Size([8, 16])
    """

    def __init__(
        self, in_dim: int, hidden_dim: int = 2048, output_dim: int = 256, num_layers: int = 3
    ) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers}: a head needs at least one layer.")
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.GELU()]
        super().__init__(*layers[:-1])
        self.output_dim = output_dim
        for layer in self:
            if isinstance(layer, nn.Linear):
                draw_normal(layer.weight)
                nn.init.zeros_(layer.bias)
