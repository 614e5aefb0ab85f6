"""The student: an encoder and its head, which learn to see through the masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, overload

from torch import Tensor, nn

from adios_tme.errors import ConfigError
from adios_tme.models.heads import TMEHead
from adios_tme.models.vit import VisionTransformer

if TYPE_CHECKING:
    from adios_tme.models.timm_encoder import TimmEncoder

Encoder: TypeAlias = "VisionTransformer | TimmEncoder"


def as_vit(encoder: nn.Module, what: str) -> VisionTransformer:
    """An encoder that has to be this package's ViT.

    Args:
        encoder: Any.
        what: That needs it, for the message.

    Raises:
        ConfigError: If it is a network of timm's.
    """
    if isinstance(encoder, VisionTransformer):
        return encoder
    raise ConfigError(
        f"{what} is for the ViT of this package, and this encoder is another network "
        f"({getattr(encoder, 'name', type(encoder).__name__)}, by --arch timm:NAME)."
    )


def in_timms_names(encoder: Encoder) -> nn.Module:
    """The network whose weights have the names that timm gives them."""
    return encoder if isinstance(encoder, VisionTransformer) else encoder.network


class Student(nn.Module):
    """Encoder and head: from views to embeddings."""

    def __init__(self, encoder: Encoder, head: TMEHead) -> None:
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
