"""Mask diagnostics: shares, sharpness, overlap, and whether the masks are hard for the student.

The embeddings that the last question takes are those that `embedding_diagnostics` looks at.

Shape legend: B images, N masks, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
#: Share of the image below which, and above whose complement, a channel counts as collapsed.
COLLAPSED = 0.01
#: Soft intersection over union of two channels from which one counts as the other's double.
DUPLICATE = 0.9
#: Correlation with the haematoxylin from which a channel counts as the nuclei's, how far the next
#: one must be below it, and over how many lines of the log both must hold.
FOLLOWS, CLEARLY, STEADY_LINES = 0.5, 0.2, 3
#: Lines of the log over which the adversarial gap is averaged before it is complained about.
GAP_LINES = 10


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
    run: Run, images_BCHW: Tensor, masks_BNHW: Tensor, now: Schedule
) -> Diagnostics:
    """Look at the masks of a batch; costs two forward passes of the student, moves no weight.

    A collective: embeddings are gathered from every rank.
    """
    clean, learned, elsewhere = _embed(run, images_BCHW, masks_BNHW)
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


def _embed(run: Run, images_BCHW: Tensor, masks_BNHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (B, ...) of images and (N, B, ...) of views by their masks and misplaced ones."""
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
    views = embeddings.unflatten(0, (-1, len(images_BCHW)))
    return views[0], views[1 : 1 + num_masks], views[1 + num_masks :]


class DiagnosticWarnings:
    """Turns facts into warnings, each once until it has passed.

    Args:
        first_iteration: The gap counts from here on; before it both networks have hardly begun.
    """

    def __init__(self, first_iteration: int) -> None:
        self._first_iteration = first_iteration
        self._active: set[str] = set()
        self._gaps: list[float] = []

    def warnings(self, line: dict[str, Any]) -> list[str]:
        """What is wrong now and was not before, in words; ``line`` is a line of metrics."""
        found = dict(self._faults(line))
        new = [text for kind, text in found.items() if kind not in self._active]
        self._active = set(found)
        return new

    def _faults(self, line: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for number, share in enumerate(line["mask_coverage"], start=1):
            if share is not None and not COLLAPSED <= share <= 1 - COLLAPSED:
                yield (
                    f"collapsed {number}",
                    f"Mask {number} has collapsed: it covers {share:.1%} of the images. "
                    f"Raise --alpha-sparsity, or lower --mask-lr-ratio.",
                )
        if line["mask_overlap"] is not None and line["mask_overlap"] > DUPLICATE:
            yield (
                "duplicate",
                f"Two masks are nearly the same (overlap {line['mask_overlap']:.2f}). "
                f"Use fewer with --num-masks, or raise --mask-lr-ratio.",
            )
        if line["iteration"] >= self._first_iteration and line["adversarial_gap"] is not None:
            self._gaps = [*self._gaps, line["adversarial_gap"]][-GAP_LINES:]
            mean = sum(self._gaps) / len(self._gaps)
            if len(self._gaps) == GAP_LINES and mean <= 0:
                yield (
                    "gap",
                    f"The student has caught up: these masks are no harder for it than the same "
                    f"ones at random places (adversarial gap {mean:.3f} over {GAP_LINES} log "
                    f"lines). If pictures show no structure either, raise --mask-lr-ratio.",
                )


class NucleiNotice:
    """Says which channel is the nuclei's, once it is plain, and again when it is another one."""

    def __init__(self) -> None:
        self._leader: int | None = None
        self._num_lines = 0
        self._told: int | None = None

    def notices(self, line: dict[str, Any]) -> list[str]:
        """What is to be said after a line of metrics, in words."""
        leader, correlation = _clear_leader(line["mask_haematoxylin_correlation"])
        self._num_lines = self._num_lines + 1 if leader == self._leader else 1
        self._leader = leader
        if leader is None or leader == self._told or self._num_lines < STEADY_LINES:
            return []
        self._told = leader
        return [
            f"Mask {leader} follows the haematoxylin (correlation {correlation:.2f}): "
            f"it is the nuclei's channel."
        ]


def _clear_leader(correlations: list[float | None]) -> tuple[int | None, float]:
    """The number from 1 on of the channel that follows the haematoxylin best, if clearly so."""
    finite = [value for value in correlations if value is not None]
    if len(finite) < len(correlations):
        return None, 0.0
    number, best = max(enumerate(finite, start=1), key=lambda pair: pair[1])
    others = [value for other, value in enumerate(finite, start=1) if other != number]
    is_clear = best > FOLLOWS and best - max(others) > CLEARLY
    return (number if is_clear else None), best
