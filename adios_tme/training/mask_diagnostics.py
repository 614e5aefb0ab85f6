"""Mask diagnostics: shares, sharpness, overlap, and whether the masks are hard for the student.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adios_tme.data.stain import haematoxylin_correlation
from adios_tme.masking.controls import misplaced
from adios_tme.masking.views import apply_masks
from adios_tme.optim.schedule import Schedule
from adios_tme.training.state import Run

#: A pixel is saturated when one mask has more than this of it.
SATURATED = 0.95


@dataclass(frozen=True)
class MaskDiagnostics:
    """Facts about the masks of one batch, on the device."""

    mask_coverage: Tensor
    """(N,) mean share of the image."""
    mask_coverage_spread: Tensor
    """(N,) standard deviation of that share over images."""
    mask_haematoxylin_correlation: Tensor
    """(N,) correlation with the amount of haematoxylin over an image's pixels, mean over images."""
    mask_entropy: Tensor
    """Mean entropy of a pixel's masks over log N: 0 is sharp, 1 is undecided."""
    mask_saturation: Tensor
    """Share of pixels that one mask has nearly to itself."""
    mask_overlap: Tensor
    """Largest soft intersection over union of two channels."""
    adversarial_gap: Tensor
    """Contrastive loss on these masks minus that on the same ones at random places, in nats."""


@torch.no_grad()
def measure_diagnostics(
    run: Run, images_BCHW: Tensor, masks_BNHW: Tensor, now: Schedule
) -> MaskDiagnostics:
    """Look at the masks of a batch; costs two forward passes of the student, moves no weight.

    A collective: the contrastive loss gathers embeddings from every rank.
    """
    area_BN = masks_BNHW.mean(dim=(2, 3))
    num_masks = masks_BNHW.shape[1]
    entropy = -(masks_BNHW * masks_BNHW.clamp_min(1e-8).log()).sum(dim=1).mean()
    return MaskDiagnostics(
        mask_coverage=area_BN.mean(dim=0),
        mask_coverage_spread=area_BN.std(dim=0, correction=0),
        mask_haematoxylin_correlation=haematoxylin_correlation(
            masks_BNHW, run.normalise.undo(images_BCHW)
        ).mean(dim=0),
        mask_entropy=entropy / torch.tensor(num_masks).log(),
        mask_saturation=(masks_BNHW.amax(dim=1) > SATURATED).float().mean(),
        mask_overlap=_largest_overlap(masks_BNHW),
        adversarial_gap=_gap(run, images_BCHW, masks_BNHW, now),
    )


def _largest_overlap(masks_BNHW: Tensor) -> Tensor:
    """Soft intersection over union (sum of minima over sum of maxima) of the closest pair."""
    num_masks = masks_BNHW.shape[1]
    pairs = [
        torch.minimum(masks_BNHW[:, one], masks_BNHW[:, other]).sum()
        / torch.maximum(masks_BNHW[:, one], masks_BNHW[:, other]).sum()
        for one in range(num_masks)
        for other in range(one)
    ]
    return torch.stack(pairs).amax()


def _gap(run: Run, images_BCHW: Tensor, masks_BNHW: Tensor, now: Schedule) -> Tensor:
    student, device, num_masks = run.bare_student, images_BCHW.device, masks_BNHW.shape[1]
    # A stream of its own, so that looking does not change what the run draws next.
    generator = torch.Generator(device).manual_seed(run.config.run.seed + run.iteration)
    misplaced_BNHW = misplaced(masks_BNHW, generator)
    views = [
        apply_masks(images_BCHW, masks, run.config.mask.fill, generator=generator)
        for masks in (masks_BNHW, misplaced_BNHW)
    ]
    student.eval()
    try:
        with run.autocast():
            embeddings = run.objective.embed(student, [images_BCHW, *views])
    finally:
        student.train()
    clean, *masked = embeddings.unflatten(0, (-1, len(images_BCHW))).split(
        [1, num_masks, num_masks]
    )
    learned, random = (run.objective.loss(clean[0], each, now).mean() for each in masked)
    return learned - random
