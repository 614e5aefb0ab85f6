"""Whether a run is healthy, from its lines of metrics; needs no network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

#: Share of the image below which, and above whose complement, a channel counts as collapsed.
COLLAPSED = 0.01
#: Soft intersection over union of two channels from which one counts as the other's double.
DUPLICATE = 0.9
#: Correlation with the haematoxylin from which a channel counts as the nuclei's, how far the next
#: one must be below it, and over how many lines of the log both must hold.
FOLLOWS, CLEARLY, STEADY_LINES = 0.5, 0.2, 3
#: Lines of the log over which the adversarial gap is averaged before it is complained about.
GAP_LINES = 10
#: Spread of embeddings, relative to those that point everywhere, below which they have collapsed.
ALIKE = 0.05
#: Number of directions that embeddings use, below which they have collapsed.
FEW_DIRECTIONS = 1.1
#: Lines of the log over which both are averaged before they are complained about.
COLLAPSE_LINES = 5


class Warnings(ABC):
    """Turns facts into warnings, each once until it has passed.

    Args:
        first_iteration: What networks that have hardly begun are like is no fault before it.
    """

    def __init__(self, first_iteration: int) -> None:
        self._first_iteration = first_iteration
        self._active: dict[str, str] = {}

    def warnings(self, line: dict[str, Any]) -> list[str]:
        """What is wrong now and was not before, in words; ``line`` is a line of metrics."""
        found = dict(self._faults(line))
        new = [text for kind, text in found.items() if kind not in self._active]
        self._active = found
        return new

    @property
    def active(self) -> dict[str, str]:
        """What is wrong as of the last line: kinds of fault, with their words."""
        return self._active

    @abstractmethod
    def _faults(self, line: dict[str, Any]) -> Iterable[tuple[str, str]]:
        """Kinds of fault as of a line, with their words."""


class DiagnosticWarnings(Warnings):
    """What is wrong with masks; the gap counts from the first iteration on."""

    def __init__(self, first_iteration: int) -> None:
        super().__init__(first_iteration)
        self._gaps: list[float] = []

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


class CollapseWarnings(Warnings):
    """Whether embeddings have collapsed, from the first iteration on."""

    def __init__(self, first_iteration: int) -> None:
        super().__init__(first_iteration)
        self._lines: list[tuple[float, float]] = []

    def _faults(self, line: dict[str, Any]) -> Iterable[tuple[str, str]]:
        spread, rank = line["embedding_std"], line["rankme"]
        if line["iteration"] < self._first_iteration or spread is None or rank is None:
            return self._active.items()  # nothing is known anew
        self._lines = [*self._lines, (spread, rank)][-COLLAPSE_LINES:]
        if len(self._lines) < COLLAPSE_LINES:
            return ()
        spread, rank = (sum(column) / COLLAPSE_LINES for column in zip(*self._lines, strict=True))
        advice = (
            "Try a lower --lr, a longer --warmup-iterations, weaker augmentation or more images "
            "per update; if the objective is not simclr, compare with it."
        )
        if spread < ALIKE:
            text = (
                f"The student has collapsed: the embeddings of different images are nearly the "
                f"same (embedding_std {spread:.3f}, where 1 is spread evenly, over "
                f"{COLLAPSE_LINES} log lines). {advice}"
            )
            return [("alike", text)]
        if rank < FEW_DIRECTIONS:
            text = (
                f"The student has collapsed to few dimensions: its embeddings use {rank:.1f} of "
                f"them (rankme over {COLLAPSE_LINES} log lines). {advice}"
            )
            return [("few", text)]
        return ()


class NucleiNotice:
    """Says which channel is the nuclei's, once it is plain, and again when it is another one."""

    def __init__(self) -> None:
        self._leader: int | None = None
        self._num_lines = 0
        self._told: int | None = None

    @property
    def channel(self) -> int | None:
        """The nuclei's channel from 1 on, as it was told last; None as long as it is not plain."""
        return self._told

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
