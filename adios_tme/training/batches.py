"""How the images of an update are shared out over ranks, and over passes of each."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Batches:
    """Sizes of one update; the same on every rank."""

    images_per_pass: int
    """Images that a rank holds at a time."""
    num_passes: int
    num_ranks: int
    asked: int | None = None
    """Global batch that was asked for."""

    @property
    def global_size(self) -> int:
        """Images per update over all ranks."""
        return self.images_per_pass * self.num_passes * self.num_ranks

    def __str__(self) -> str:
        passes = f"{self.num_passes} passes of " if self.num_passes > 1 else ""
        what = f"{self.global_size} ({passes}{self.images_per_pass} x {self.num_ranks} ranks)"
        if self.asked in (None, self.global_size):
            return what
        return f"{what} instead of {self.asked}, which {self.num_ranks} ranks do not divide"


def plan_batches(most: int, asked: int | None, num_ranks: int) -> Batches:
    """Keep to the global batch that is asked for: exactly where the ranks divide it, else nearly.

    Each rank takes its share in the fewest equal passes.

    Args:
        most: Images that a rank holds at a time.
        asked: Global batch; None: as many as all ranks hold.
        num_ranks: All ranks.
    """
    if asked is None:
        return Batches(most, 1, num_ranks)
    fewest = math.ceil(asked / (num_ranks * most))
    # A share of 9 by at most 4 is 3 passes of 3; one of 7 is 2 of 3 or of 4, both nearly.
    plans = [
        Batches(images, passes, num_ranks, asked)
        for passes in range(fewest, 2 * fewest + 1)
        for images in {asked // (num_ranks * passes), math.ceil(asked / (num_ranks * passes))}
        if 1 <= images <= most
    ]
    return min(plans, key=lambda plan: (abs(plan.global_size - asked), plan.num_passes))
