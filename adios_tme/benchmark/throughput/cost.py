"""What a step costs on paper: arithmetic, memory, and traffic between ranks.

A FLOP is half a multiply-add of a matrix product or convolution, as `torch.utils.flop_counter` has
it; attention counts as two plain products forward and four backward. Everything is per image or per
rank and follows from the settings alone. The formulas are in docs/scaling.md.

Shape legend: N masks, K crops of each, T tokens of a view, D width, h hidden width of the MLP.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adios_tme.benchmark.throughput.live_bytes import peak_bytes
from adios_tme.config.model import StudentConfig
from adios_tme.config.run import ComputeConfig
from adios_tme.config.train import TrainConfig
from adios_tme.models.build import build_mask_model
from adios_tme.models.layers import swiglu_width
from adios_tme.models.resolve import Resolved, resolve

#: Bytes of a number in single precision: weights, gradients, residual stream, embeddings.
SINGLE = 4
#: Images whose memory is counted beside that of twice as many, to see what one adds.
MANY = 32


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


@dataclass(frozen=True)
class MaskModelCost:
    """What the mask model does for one image."""

    forward: int
    """FLOPs of one pass."""
    backward: int
    """FLOPs of the pass back, to the weights that learn."""
    kept_bytes: int
    """What it keeps between the two, in single precision."""
    peak_bytes: int
    """What it needs at its fullest moment beside weights and gradients, in single precision."""
    num_weights: int
    """That learn."""

    @classmethod
    def of(cls, config: TrainConfig) -> MaskModelCost:
        """Counted on a network of these settings."""
        size = config.data.img_size
        network = _mask_model(config, recompute=config.compute.mask_grad_checkpointing)
        images = torch.zeros(1, 3, size, size)
        kept = kept_bytes(network, lambda: network(images))
        # On the meta device arithmetic has shapes and costs no time.
        peak = (_peak_of_pass(network, 2 * MANY, size) - _peak_of_pass(network, MANY, size)) // MANY
        network, images = _mask_model(config, recompute=False).to("meta"), images.to("meta")
        forward = count_flops(lambda: network(images))
        both = count_flops(lambda: network(images).sum().backward())
        weights = [weight.numel() for weight in network.parameters() if weight.requires_grad]
        return cls(forward, both - forward, kept, peak, sum(weights))


def _mask_model(config: TrainConfig, *, recompute: bool) -> nn.Module:
    compute = ComputeConfig(attention="sdpa", compile="off", mask_grad_checkpointing=recompute)
    plain = resolve(config.model_copy(update={"compute": compute}), torch.device("cpu"))
    return build_mask_model(config.mask, config.model, config.data.img_size, plain).train()


def _peak_of_pass(network: nn.Module, num_images: int, size: int) -> int:
    """Most bytes alive in a pass forward and back; the network is on the meta device afterwards."""
    network.to("meta").zero_grad()
    images = torch.empty(num_images, 3, size, size, device="meta")
    return peak_bytes(lambda: network(images).sum().backward())


@dataclass(frozen=True)
class StepCost:
    """Cost of one step in which the mask model is due."""

    config: TrainConfig
    resolved: Resolved
    mask_model: MaskModelCost

    @classmethod
    def of(cls, config: TrainConfig, resolved: Resolved | None = None) -> StepCost:
        """Cost of a step with these settings; by default on a CPU."""
        resolved = resolved or resolve(config, torch.device("cpu"))
        return cls(config, resolved, MaskModelCost.of(config))

    @property
    def floor_flops(self) -> int:
        """Least arithmetic per image when every block treats every token.

        In the student half the clean view, each masked view and each crop go forward and back. In
        the mask half the clean view goes forward and each masked view forward and back to the
        pixels. The mask model goes forward once, or once in each half, and back once. Penalties
        that look at features of patches or at mirrored images add their passes.
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
        passes = 1 if self.resolved.shares_masks else 2
        mirrored = self._num_mirrored
        return (passes + mirrored) * self.mask_model.forward + (
            1 + mirrored
        ) * self.mask_model.backward

    @property
    def _num_mirrored(self) -> int:
        """Passes of the mask model for the consistency of masks."""
        return int(self.config.loss.consistency_weight > 0)

    @property
    def _reconstruction_flops(self) -> int:
        """Features of every patch of the clean view, and what regions make of them and back."""
        model, img_size = self.config.model, self.config.data.img_size
        if self.config.loss.reconstruction_weight == 0:
            return 0
        encoder = ViewCost.of(model, img_size, class_only=False).forward - head_flops(model)
        product = 2 * self.config.mask.num_masks * num_patches(model, img_size) * model.embed_dim
        return encoder + 5 * product

    @property
    def num_weights(self) -> int:
        """Of both networks, those that learn."""
        return num_weights(self.config.model, self.config.data.img_size) + (
            self.mask_model.num_weights
        )

    def kept_bytes(self, number_bytes: int = SINGLE) -> int:
        """Activations per image at the step's fullest moment, at the end of a half's forward pass.

        Args:
            number_bytes: Of a number in the networks' arithmetic; the mask model's share is taken
                to shrink with it.
        """
        masks = self._masks_kept(number_bytes)
        student_half = self._of_views(kept_of_views, number_bytes, frozen=False)
        frozen_half = self._of_views(kept_of_views, number_bytes, frozen=True)
        return max(
            student_half + (masks if self.resolved.shares_masks else 0),
            frozen_half + (1 + self._num_mirrored) * masks,
        )

    def peak_bytes(self, batch_size: int, number_bytes: int = SINGLE) -> int:
        """Memory of a rank at the step's fullest moment.

        Weights, gradients, moments, images, masks and activations; gradients of the step before
        stay until a half's backward pass begins, so the moment is the end of a forward pass, or the
        beginning of a backward pass when a block's passing needs outweigh the gradients; with
        gradient checkpointing the end of it too, where they are back.

        Args:
            batch_size: Images of the rank.
            number_bytes: Of a number in the networks' arithmetic.
        """
        img_size = self.config.data.img_size
        students = num_weights(self.config.model, img_size)
        recompute = self.resolved.grad_checkpointing
        masks = self._masks_kept(number_bytes)
        mirrored = self._num_mirrored * masks
        alone = self.mask_model.peak_bytes * number_bytes // SINGLE
        moments = [batch_size * (alone + mirrored)]
        for frozen, beside, gradients in (
            (False, masks if self.resolved.shares_masks else 0, students),
            (True, masks + mirrored, self.mask_model.num_weights),
        ):
            kept = self._of_views(kept_of_views, number_bytes, frozen=frozen)
            passing = self._of_views(passing_of_views, number_bytes, frozen=frozen)
            moments.append(batch_size * (kept + beside))
            moments.append(batch_size * (kept + beside + passing) - gradients * SINGLE)
            if recompute:
                moments.append(batch_size * (kept // self.config.model.depth + beside + passing))
        pixels = (3 + self.config.mask.num_masks) * img_size**2 * SINGLE
        return (
            self.state_bytes
            + self._copies_of_weights(number_bytes)
            + batch_size * pixels
            + max(moments)
        )

    def _copies_of_weights(self, number_bytes: int) -> int:
        """Of all weights in half precision; else of those that LayerScale's factors go into."""
        if number_bytes != SINGLE:
            return self.num_weights * number_bytes
        dim = self.config.model.embed_dim
        return self.config.model.depth * dim * (dim + swiglu_width(dim)) * SINGLE

    def _masks_kept(self, number_bytes: int) -> int:
        return self.mask_model.kept_bytes * number_bytes // SINGLE

    def _of_views(self, of_view: Callable[..., int], number_bytes: int, *, frozen: bool) -> int:
        """Bytes of all views of an image that a half goes back through."""
        model, mask, img_size = self.config.model, self.config.mask, self.config.data.img_size
        recompute = self.resolved.grad_checkpointing

        def of(size: int) -> int:
            return of_view(
                model, size, number_bytes=number_bytes, frozen=frozen, recompute=recompute
            )

        if frozen:
            return mask.num_masks * of(img_size)
        crops = mask.num_masks * mask.crops_per_mask * of(self.resolved.crop_size)
        return (1 + mask.num_masks) * of(img_size) + crops

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and both moments of AdamW, on every rank."""
        return 4 * SINGLE * self.num_weights

    @property
    def gradient_bytes(self) -> int:
        """Gradients that ranks average in a step; a ring sends nearly twice that from each rank."""
        return SINGLE * self.num_weights

    def embedding_bytes(self, batch_size: int) -> int:
        """Embeddings of one rank in both halves.

        It receives as much from each other rank, and sends as much gradient back to it.
        """
        mask = self.config.mask
        views = 2 * (1 + mask.num_masks) + mask.num_masks * mask.crops_per_mask
        return views * batch_size * self.config.model.tme_output_dim * SINGLE

    def _students_part(self, *, class_only: bool) -> int:
        model, mask, img_size = self.config.model, self.config.mask, self.config.data.img_size
        view = ViewCost.of(model, img_size, class_only=class_only)
        crop = ViewCost.of(model, self.resolved.crop_size, class_only=class_only)
        num_crops = mask.num_masks * mask.crops_per_mask
        student_half = (mask.num_masks + 1) * view.learning + num_crops * crop.learning
        mask_half = view.forward + mask.num_masks * view.frozen
        return student_half + mask_half + self._reconstruction_flops
