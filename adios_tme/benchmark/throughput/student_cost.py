"""What the student costs on paper: arithmetic, memory and weights, per view.

Shape legend: T tokens of a view, D width, h hidden width of the MLP.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from adios_tme.config.model import StudentConfig
from adios_tme.models.layers import swiglu_width

#: Bytes of a number in single precision: weights, gradients, residual stream, embeddings.
SINGLE = 4


def num_tokens(model: StudentConfig, size: int) -> int:
    """Tokens of a view of so many pixels a side: class token, registers and patches."""
    return 1 + model.num_register_tokens + num_patches(model, size)


def num_patches(model: StudentConfig, size: int) -> int:
    """Patches of a view of so many pixels a side."""
    return int((size // model.patch_size) ** 2)


def head_flops(model: StudentConfig) -> int:
    """FLOPs of the head on one class token."""
    return sum(2 * narrow * wide for narrow, wide in _head_layers(model))


def _head_layers(model: StudentConfig) -> Iterator[tuple[int, int]]:
    """Widths before and after each linear layer of the head."""
    hidden = [model.tme_hidden_dim] * (model.tme_layers - 1)
    return itertools.pairwise([model.embed_dim, *hidden, model.tme_output_dim])


@dataclass(frozen=True)
class ViewCost:
    """FLOPs of the student on one view."""

    forward: int
    """The unit F of the step's cost."""
    attention: int
    """Of F, the two products of attention; their backward pass costs twice as much in any case."""
    patches: int
    """Of F, the patch embedding; its way back to the pixels is needed in the mask half only."""

    @classmethod
    def of(cls, model: StudentConfig, size: int, *, class_only: bool) -> ViewCost:
        """Encoder and head on one view of so many pixels a side.

        Args:
            model: Sizes of the student.
            size: Side of the view in pixels.
            class_only: Whether the last block's queries, projection and MLP are computed for the
                class token alone, as a student does, or for every token.
        """
        dim, tokens = model.embed_dim, num_tokens(model, size)
        queries = tokens * (model.depth - 1) + (1 if class_only else tokens)
        attention = queries * 4 * tokens * dim
        linear = queries * 2 * (2 * dim * dim + 3 * dim * swiglu_width(dim))
        linear += model.depth * tokens * 2 * 2 * dim * dim  # keys and values
        patches = 2 * num_patches(model, size) * 3 * model.patch_size**2 * dim
        return cls(attention + linear + patches + head_flops(model), attention, patches)

    @property
    def learning(self) -> int:
        """Forward and backward in the student half."""
        return 3 * self.forward - self.patches

    @property
    def frozen(self) -> int:
        """Forward, and backward to the pixels alone, in the mask half."""
        return 2 * self.forward + self.attention


def kept_of_views(
    model: StudentConfig, size: int, *, number_bytes: int, frozen: bool, recompute: bool = False
) -> int:
    """Bytes that the encoder keeps of one view for its backward pass.

    A block keeps the residual stream before each norm in single precision; queries, keys and
    values, what attention makes of them, and both halves of the gated layer; and, where weights
    learn, the inputs of its four linear layers besides. The last block keeps what all tokens are
    keys and values of, the patch embedding its pixels.

    Args:
        model: Sizes of the student.
        size: Side of the view in pixels.
        number_bytes: Of a number in the network's arithmetic: 4, or 2 in bf16 and fp16.
        frozen: Whether the weights are frozen, as in the mask half.
        recompute: Whether blocks keep their inputs alone (gradient checkpointing); on the way back
            one block at a time keeps the rest, which is not in here.
    """
    dim, tokens = model.embed_dim, num_tokens(model, size)
    last = dim * SINGLE + (2 + (0 if frozen else 1)) * dim * number_bytes
    block = _kept_of_block(model, number_bytes, frozen=frozen)
    pixels = 3 * size * size * number_bytes  # which the patch embedding keeps in any case
    head = 2 * (model.tme_layers - 1) * model.tme_hidden_dim * number_bytes
    if recompute:
        return tokens * model.depth * dim * SINGLE + pixels + head
    return tokens * ((model.depth - 1) * block + last) + pixels + head


def passing_of_views(
    model: StudentConfig, size: int, *, number_bytes: int, frozen: bool, recompute: bool
) -> int:
    """Bytes beside those kept that one view needs for a moment of its backward pass.

    The gradients of the residual stream and of the MLP's hidden layer, whose own numbers go as
    theirs come; with gradient checkpointing also what a block computes again from its input.
    """
    dim, hidden = model.embed_dim, swiglu_width(model.embed_dim)
    numbers = dim * SINGLE + (4 if frozen else 3) * hidden * number_bytes
    if recompute:
        numbers += _kept_of_block(model, number_bytes, frozen=frozen) - dim * SINGLE
    return num_tokens(model, size) * numbers


def _kept_of_block(model: StudentConfig, number_bytes: int, *, frozen: bool) -> int:
    """Bytes that a block keeps of a token where it is not computed again."""
    dim, hidden = model.embed_dim, swiglu_width(model.embed_dim)
    tensors = 4 * dim + 2 * hidden + (0 if frozen else 2 * dim + hidden)
    return 2 * dim * SINGLE + tensors * number_bytes


def num_weights(model: StudentConfig, img_size: int) -> int:
    """Weights of encoder and head."""
    dim, hidden = model.embed_dim, swiglu_width(model.embed_dim)
    block = 4 * dim * dim + 3 * dim * hidden + 2 * hidden + 11 * dim
    embedding = 3 * model.patch_size**2 * dim + dim + num_tokens(model, img_size) * dim
    head = sum(narrow * wide + wide for narrow, wide in _head_layers(model))
    return embedding + model.depth * block + 2 * dim + head
