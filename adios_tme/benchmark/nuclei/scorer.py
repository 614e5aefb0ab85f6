"""Scoring a method on a data set: one process looks, the others score."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.nuclei.aggregate import choose, choose_without_labels, summarise
from adios_tme.benchmark.nuclei.label_folder import LabelledImages
from adios_tme.benchmark.nuclei.pixel_scores import Chosen, ImageScores, score_image
from adios_tme.benchmark.nuclei.results import Cost, MethodScores
from adios_tme.distributed.pool import process_pool
from adios_tme.errors import CheckpointError
from adios_tme.inference.clean import Cleaning
from adios_tme.inference.sliding_window import Predict

#: Images that wait for a free process, for each of them; bounds the memory.
WAITING = 4


class _InThisProcess(Executor):
    """Does at once what a pool would do later."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@contextmanager
def scoring_pool(num_workers: int) -> Iterator[Executor]:
    """Processes that score images while this one looks at the next.

    Raises:
        LaunchError: If one of them is killed.
    """
    if num_workers < 2:
        yield _InThisProcess()
        return
    with process_pool(num_workers, "Scoring images") as pool:
        yield pool


@dataclass
class Scorer:
    """Scores methods on the same images by the same protocol.

    Args:
        images: The data set.
        calibration: Which of them channels and thresholds are chosen on.
        seed: Of the bootstrap.
        pool: Who scores.
        cost: Where time is written down.
    """

    images: LabelledImages
    calibration: NDArray[np.bool_]
    seed: int
    pool: Executor
    num_workers: int
    cost: Cost = field(default_factory=Cost)

    def score(
        self,
        predict: Predict,
        what: str,
        on_image: Callable[[], None] = lambda: None,
        cleaning: Cleaning | None = None,
    ) -> MethodScores:
        """Look at the calibration part, choose channels and thresholds, then look at the rest.

        Args:
            predict: The method.
            what: Its name, for messages.
            on_image: Called after each image.
            cleaning: Score its masks cleaned as well.

        Raises:
            CheckpointError: If masks are not finite.
            DataError: If an image cannot be read.
        """
        calibration = np.flatnonzero(self.calibration).tolist()
        rest = np.flatnonzero(~self.calibration).tolist()
        found: dict[int, tuple[ImageScores, str | None]] = {}

        def look_at(numbers: Sequence[int], chosen: Chosen | None) -> None:
            job = partial(score_image, chosen=chosen, cleaning=cleaning)
            for number, scored in self._each(predict, numbers, job, what):
                found[number] = scored
                on_image()

        look_at(calibration, None)
        chosen = _choose([found[number][0] for number in calibration])
        look_at(rest, chosen)
        scores = [found[number][0] for number in range(len(self.images))]
        tissues = [found[number][1] for number in range(len(self.images))]
        return summarise(scores, self.calibration, chosen, tissues, self.seed)

    def _each(
        self,
        predict: Predict,
        numbers: Sequence[int],
        score: Callable[..., ImageScores],
        what: str,
    ) -> Iterator[tuple[int, tuple[ImageScores, str | None]]]:
        waiting: deque[tuple[int, str | None, Future[ImageScores]]] = deque()

        def oldest() -> tuple[int, tuple[ImageScores, str | None]]:
            number, tissue, job = waiting.popleft()
            scores = job.result()
            self.cost.num_images += 1
            self.cost.score_seconds += scores.seconds
            return number, (scores, tissue)

        for number in numbers:
            image = self.images[number]
            start = time.perf_counter()
            masks_NHW = predict(image.pixels)
            self.cost.predict_seconds += time.perf_counter() - start
            if not np.isfinite(masks_NHW).all():
                raise CheckpointError(
                    f"{what}: its masks on {image.name} are not finite. "
                    f"Use a checkpoint from before the run diverged."
                )
            job = self.pool.submit(score, masks_NHW, image.pixels, image.labels)
            waiting.append((number, image.tissue, job))
            if len(waiting) >= WAITING * self.num_workers:
                yield oldest()
        while waiting:
            yield oldest()


def _choose(scores: Sequence[ImageScores]) -> Chosen:
    """With the labels of these images, and without."""
    seen = [each.seen for each in scores if each.seen is not None]
    fixed = choose(np.stack([each.pixels.iou for each in scores]))
    return Chosen(fixed, choose_without_labels(seen))
