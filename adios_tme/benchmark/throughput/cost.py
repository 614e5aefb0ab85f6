"""What a step costs on paper: arithmetic, memory, and traffic between ranks.

A FLOP is half a multiply-add of a matrix product or convolution, as `torch.utils.flop_counter` has
it; attention counts as two plain products forward and four backward. Everything is per image or per
rank and follows from the settings alone. The formulas are in docs/scaling.md.

Shape legend: N masks, V masked views, K crops of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from adios_tme.benchmark.throughput.mask_model_cost import MaskModelCost
from adios_tme.benchmark.throughput.objective_cost import ObjectiveCost
from adios_tme.benchmark.throughput.student_cost import (
    SINGLE,
    ViewCost,
    head_flops,
    kept_of_views,
    num_patches,
    num_weights,
    passing_of_views,
)
from adios_tme.config.model import is_timm
from adios_tme.config.train import TrainConfig
from adios_tme.errors import ConfigError
from adios_tme.models.layers import swiglu_width
from adios_tme.models.resolve import Resolved, resolve


@dataclass(frozen=True)
class StepCost:
    """Cost of one step in which the mask model is due."""

    config: TrainConfig
    resolved: Resolved
    mask_model: MaskModelCost

    @classmethod
    def of(cls, config: TrainConfig, resolved: Resolved | None = None) -> StepCost:
        """Cost of a step with these settings; by default on a CPU.

        Raises:
            ConfigError: If the student is a network of timm's.
        """
        if is_timm(config.model.arch):
            raise ConfigError(
                f"arch={config.model.arch}: what a step costs on paper is known for this package's "
                f"ViT alone. Use --arch vit_small or another of ours."
            )
        resolved = resolved or resolve(config, torch.device("cpu"))
        return cls(config, resolved, MaskModelCost.of(config))

    @property
    def floor_flops(self) -> int:
        """Least arithmetic per image when every block treats every token.

        In the student half the clean view, each masked view and each crop go forward and back. In
        the mask half the clean view goes forward and each masked view forward and back to the
        pixels. The mask model goes forward once, or once in each half, and back once. Penalties
        that look at features of patches or at mirrored images add their passes. A teacher goes
        forward on every view of the student half, and on the clean one of the mask half instead of
        the student; a predictor learns on every view of the student half and is frozen on the
        masked ones of the mask half.
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
    def objective(self) -> ObjectiveCost:
        """What the objective adds."""
        return ObjectiveCost.of(self.config)

    @property
    def num_masked(self) -> int:
        """Masked views of an image in each half."""
        return 1 if self.config.mask.variant == "adios_s" else self.config.mask.num_masks

    @property
    def _num_crops(self) -> int:
        return self.num_masked * self.config.mask.crops_per_mask

    @property
    def _num_students_weights(self) -> int:
        return num_weights(self.config.model, self.config.data.img_size)

    @property
    def num_weights(self) -> int:
        """Of both networks and the predictor, those that learn."""
        return self._num_students_weights + self.objective.num_weights + self.mask_model.num_weights

    @property
    def _num_teachers_weights(self) -> int:
        return self._num_students_weights if self.objective.has_teacher else 0

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
        students = self._num_students_weights + self.objective.num_weights
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
        num_views = 2 if self.config.data.views == "two" else 1
        pixels = (3 * num_views + self.config.mask.num_masks) * img_size**2 * SINGLE
        return (
            self.state_bytes
            + self._copies_of_weights(number_bytes)
            + batch_size * pixels
            + max(moments)
        )

    def _copies_of_weights(self, number_bytes: int) -> int:
        """Of all weights in half precision; else of those that LayerScale's factors go into."""
        if number_bytes != SINGLE:
            return (self.num_weights + self._num_teachers_weights) * number_bytes
        dim = self.config.model.embed_dim
        return self.config.model.depth * dim * (dim + swiglu_width(dim)) * SINGLE

    def _masks_kept(self, number_bytes: int) -> int:
        return self.mask_model.kept_bytes * number_bytes // SINGLE

    def _of_views(self, of_view: Callable[..., int], number_bytes: int, *, frozen: bool) -> int:
        """Bytes of all views of an image that a half goes back through."""
        model, img_size = self.config.model, self.config.data.img_size
        recompute = self.resolved.grad_checkpointing

        def of(size: int) -> int:
            return of_view(
                model, size, number_bytes=number_bytes, frozen=frozen, recompute=recompute
            )

        if frozen:
            return self.num_masked * of(img_size)
        crops = self._num_crops * of(self.resolved.crop_size)
        return (1 + self.num_masked) * of(img_size) + crops

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and both moments of AdamW, and a teacher's weights, on every rank."""
        return SINGLE * (4 * self.num_weights + self._num_teachers_weights)

    @property
    def gradient_bytes(self) -> int:
        """Gradients that ranks average in a step; a ring sends nearly twice that from each rank."""
        return SINGLE * self.num_weights

    def embedding_bytes(self, batch_size: int) -> int:
        """Embeddings, or their statistics, of one rank in both halves.

        It receives as much from each other rank, and sends as much gradient back to it.
        """
        num_views = 1 + self.num_masked + self._num_crops
        return self.objective.sent_bytes(num_views, self.num_masked, batch_size)

    def _students_part(self, *, class_only: bool) -> int:
        model, img_size = self.config.model, self.config.data.img_size
        view = ViewCost.of(model, img_size, class_only=class_only)
        crop = ViewCost.of(model, self.resolved.crop_size, class_only=class_only)
        num_masked, num_crops = self.num_masked, self._num_crops
        student_half = (1 + num_masked) * view.learning + num_crops * crop.learning
        if self.objective.has_teacher:
            student_half += (1 + num_masked) * view.forward + num_crops * crop.forward
        mask_half = view.forward + num_masked * view.frozen
        predictor = self.objective.predictor_flops(1 + num_masked + num_crops, num_masked)
        return student_half + mask_half + predictor + self._reconstruction_flops
