"""Mask diagnostics: shares, sharpness, overlap, and whether the masks are hard for the student.

The embeddings that the last question takes are those that `embedding_diagnostics` looks at.

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
from adios_tme.training.embedding_diagnostics import EmbeddingDiagnostics, measure_embeddings
from adios_tme.training.state import Run

#: A pixel is saturated when one mask has more than this of it.
SATURATED = 0.95


@dataclass(frozen=True)
class Diagnostics(EmbeddingDiagnostics):
    """Facts about masks and embeddings of one batch, on the device."""

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
    """The objective's loss on these masks minus that on the same ones at random places."""


@torch.no_grad()
def measure_diagnostics(
    run: Run,
    images_BCHW: Tensor,
    masks_BNHW: Tensor,
    now: Schedule,
    clean_BCHW: Tensor | None = None,
) -> Diagnostics:
    """Look at the masks of a batch; costs two forward passes of the student, moves no weight.

    A collective: embeddings are gathered from every rank.

    Args:
        run: The run.
        images_BCHW: Images, which are masked.
        masks_BNHW: Their masks.
        now: Settings of the step.
        clean_BCHW: What masked views are compared with; absent: the images themselves.
    """
    clean_BCHW = images_BCHW if clean_BCHW is None else clean_BCHW
    clean, learned, elsewhere = _embed(run, images_BCHW, clean_BCHW, masks_BNHW)
    hard, easy = (run.objective.loss(clean, each, now).mean() for each in (learned, elsewhere))
    area_BN = masks_BNHW.mean(dim=(2, 3))
    num_masks = masks_BNHW.shape[1]
    entropy = -(masks_BNHW * masks_BNHW.clamp_min(1e-8).log()).sum(dim=1).mean()
    embeddings = measure_embeddings(*map(run.objective.embeddings, (clean, learned)))
    return Diagnostics(
        **vars(embeddings),
        mask_coverage=area_BN.mean(dim=0),
        mask_coverage_spread=area_BN.std(dim=0, correction=0),
        mask_haematoxylin_correlation=haematoxylin_correlation(
            masks_BNHW, run.normalise.undo(images_BCHW)
        ).mean(dim=0),
        mask_entropy=entropy / torch.tensor(num_masks).log(),
        mask_saturation=(masks_BNHW.amax(dim=1) > SATURATED).float().mean(),
        mask_overlap=_largest_overlap(masks_BNHW),
        adversarial_gap=hard - easy,
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


def _embed(
    run: Run, images_BCHW: Tensor, clean_BCHW: Tensor, masks_BNHW: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (B, ...) of clean views, and (N, B, ...) by the masks and by misplaced ones."""
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
            embeddings = run.objective.embed(student, [clean_BCHW, *views])
    finally:
        student.train()
    views = embeddings.unflatten(0, (-1, len(images_BCHW)))
    return views[0], views[1 : 1 + num_masks], views[1 + num_masks :]
