"""What a step costs on paper: arithmetic, memory, and traffic between ranks.

A FLOP is half a multiply-add of a matrix product or convolution, as `torch.utils.flop_counter` has
it; attention counts as two plain products forward and four backward. Everything is per image or per
rank and follows from the settings alone. The formulas are in docs/scaling.md.

Shape legend: N masks, K crops of each, T tokens of a view, D width, h hidden width of the MLP.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adios_tme.config.model import StudentConfig
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.models.build import build_mask_model
from adios_tme.models.layers import swiglu_width

#: Bytes of a number in single precision: weights, gradients, residual stream, embeddings.
SINGLE = 4


def count_flops(function: Callable[[], object]) -> int:
    """FLOPs that a call really does, backward passes inside it included.

    Compiled regions and attention back ends other than SDPA hide theirs.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return int(counter.get_total_flops())


def kept_bytes(network: nn.Module, function: Callable[[], object]) -> int:
    """Bytes that autograd keeps from a call for its backward pass, beside the network's weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # what is freed could lend its address to another

    def note(kept: Tensor) -> Tensor:
        alive.append(kept)
        storage = kept.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        alive.append(function())  # type: ignore[arg-type]
    return sum(size for place, size in sizes.items() if place not in weights)


def num_tokens(model: StudentConfig, size: int) -> int:
    """Tokens of a view of so many pixels a side: class token, registers and patches."""
    return 1 + model.num_register_tokens + (size // model.patch_size) ** 2


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
        patches = 2 * (tokens - 1 - model.num_register_tokens) * 3 * model.patch_size**2 * dim
        widths = [dim, *[model.tme_hidden_dim] * (model.tme_layers - 1), model.tme_output_dim]
        head = sum(2 * narrow * wide for narrow, wide in itertools.pairwise(widths))
        return cls(attention + linear + patches + head, attention, patches)

    @property
    def learning(self) -> int:
        """Forward and backward in the student half."""
        return 3 * self.forward - self.patches

    @property
    def judging(self) -> int:
        """Forward, and backward to the pixels alone, in the mask half."""
        return 2 * self.forward + self.attention


@dataclass(frozen=True)
class MaskModelCost:
    """What the mask model does for one image."""

    forward: int
    """FLOPs of one pass."""
    backward: int
    """FLOPs of the pass back, to the weights that learn."""
    kept_bytes: int
    """What it keeps between the two, in single precision."""
    num_weights: int
    """That learn."""

    @classmethod
    def of(cls, config: TrainConfig) -> MaskModelCost:
        """Counted on a network of these settings."""
        size, cpu = config.data.img_size, torch.device("cpu")
        plain = ComputeConfig(attention="sdpa", compile="off")
        network = build_mask_model(config.mask, config.model, size, plain, cpu).train()
        images = torch.zeros(1, 3, size, size)
        kept = kept_bytes(network, lambda: network(images))
        # On the meta device arithmetic has shapes and costs no time.
        network, images = network.to("meta"), images.to("meta")
        forward = count_flops(lambda: network(images))
        both = count_flops(lambda: network(images).sum().backward())
        weights = [weight.numel() for weight in network.parameters() if weight.requires_grad]
        return cls(forward, both - forward, kept, sum(weights))


@dataclass(frozen=True)
class StepCost:
    """Cost of one step in which the mask model is due."""

    config: TrainConfig
    mask_model: MaskModelCost

    @classmethod
    def of(cls, config: TrainConfig) -> StepCost:
        """Cost of a step with these settings."""
        return cls(config, MaskModelCost.of(config))

    @property
    def floor_flops(self) -> int:
        """Least arithmetic per image when every block treats every token.

        In the student half the clean view, each masked view and each crop go forward and back. In
        the mask half the clean view goes forward and each masked view forward and back to the
        pixels. The mask model goes forward once, or once in each half, and back once.
        """
        return self._students_part(class_only=False) + self.mask_models_part

    @property
    def flops(self) -> int:
        """The same where the last block treats class tokens alone; what a step should cost."""
        return self.students_part + self.mask_models_part

    @property
    def students_part(self) -> int:
        """Of `flops`, the student's in both halves."""
        return self._students_part(class_only=True)

    @property
    def mask_models_part(self) -> int:
        """Of `flops`, the mask model's."""
        passes = 1 if shares_forward(self.config) else 2
        return passes * self.mask_model.forward + self.mask_model.backward

    def _students_part(self, *, class_only: bool) -> int:
        model, mask, img_size = self.config.model, self.config.mask, self.config.data.img_size
        view = ViewCost.of(model, img_size, class_only=class_only)
        crop = ViewCost.of(model, mask.crop_size or img_size, class_only=class_only)
        num_crops = mask.num_masks * mask.crops_per_mask
        student_half = (mask.num_masks + 1) * view.learning + num_crops * crop.learning
        return student_half + view.forward + mask.num_masks * view.judging


def shares_forward(config: TrainConfig) -> bool:
    """Whether one pass of the mask model serves both halves."""
    mask = config.mask
    if mask.mask_forward != "auto":
        return mask.mask_forward == "shared"
    return mask.mask_model_type == "adios" or mask.mask_dropout == 0
