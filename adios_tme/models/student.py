"""The student: an encoder and its head, which learn to see through the masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from torch import Tensor, nn

from adios_tme.models.heads import TMEHead
from adios_tme.models.vit import VisionTransformer


class Student(nn.Module):
    """Encoder and head: from views to embeddings."""

    def __init__(self, encoder: VisionTransformer, head: TMEHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    @overload
    def forward(self, views: Tensor) -> Tensor: ...

    @overload
    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]: ...

    def forward(self, views: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Embed normalised views.

        Args:
            views: (B, 3, H, W), or several batches of one or several sizes, encoded in one call.

        Returns:
            Embeddings (B, D_out), or one tensor of them per batch.
        """
        batches = [views] if isinstance(views, Tensor) else views
        embeddings: Tensor = self.head(self.encoder.class_tokens(batches))
        if isinstance(views, Tensor):
            return embeddings
        return tuple(embeddings.split([len(batch) for batch in batches]))
