"""One set with what is known of it: scores from earlier, and those that are added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.checkpoints import KeptCheckpoint
from adios_tme.benchmark.probe.class_folders import ImageReader
from adios_tme.benchmark.probe.describe import Describer, Reading
from adios_tme.benchmark.probe.fit import Fit
from adios_tme.benchmark.probe.metrics import paired_difference
from adios_tme.benchmark.probe.results import (
    CLASSIFIERS,
    GIVEN,
    SIMPLE,
    CheckpointScores,
    Difference,
    MethodScores,
    RivalScores,
    SetResults,
    as_numbers,
    as_text,
)
from adios_tme.benchmark.probe.sets import ProbeSet
from adios_tme.config.commands.probe import ProbeConfig

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rival:
    """What is probed beside the checkpoints."""

    name: str
    describer: Describer
    sha256: str = ""
    """Of weights that come from elsewhere."""


class SetScores:
    """Scores on one set.

    Args:
        probe_set: The set.
        before: What was scored earlier under the same protocol; else without scores.
        reading: How images are read.
        config: Settings of the classifiers.
    """

    def __init__(
        self, probe_set: ProbeSet, before: SetResults, reading: Reading, config: ProbeConfig
    ) -> None:
        self._set = probe_set
        self._protocol = before.protocol
        self._reading = reading
        self._rivals = dict(before.rivals)
        self._done = {each.key: each.scores for each in before.checkpoints}
        self._fit = Fit.of(probe_set.parts, config)
        parts = probe_set.parts
        if not probe_set.is_images and GIVEN not in self._rivals:
            train, test = (np.stack(part.items) for part in (parts.train, parts.test))
            self._rivals[GIVEN] = RivalScores(self._fit(train, test))

    def num_to_do(self, rivals: Sequence[Rival], checkpoints: Sequence[KeptCheckpoint]) -> int:
        """Images that have to be embedded."""
        methods = sum(map(self._lacks_rival, rivals)) + sum(map(self.lacks, checkpoints))
        return methods * len(self._set)

    def lacks(self, checkpoint: KeptCheckpoint) -> bool:
        """Whether a checkpoint has to be probed."""
        return self._set.is_images and checkpoint.key not in self._done

    def _lacks_rival(self, rival: Rival) -> bool:
        known = self._rivals.get(rival.name)
        return self._set.is_images and (known is None or known.sha256 != rival.sha256)

    def add_rival(self, rival: Rival, on_image: Callable[[], None]) -> None:
        """Probe a rival, unless its scores are known."""
        if self._lacks_rival(rival):
            scores = self._score(rival.describer, rival.name, on_image)
            self._rivals[rival.name] = RivalScores(scores, rival.sha256)

    def add_checkpoint(
        self, checkpoint: KeptCheckpoint, describer: Describer, on_image: Callable[[], None]
    ) -> None:
        """Probe a checkpoint, unless its scores are known."""
        if self.lacks(checkpoint):
            self._done[checkpoint.key] = self._score(describer, str(checkpoint.path), on_image)

    def _score(self, describer: Describer, what: str, on_image: Callable[[], None]) -> MethodScores:
        train, test = (
            self._reading.features(describer, ImageReader(part), len(part), what, on_image)
            for part in (self._set.parts.train, self._set.parts.test)
        )
        return self._fit(train, test, standardise=describer.standardise)

    def results(self, checkpoints: Sequence[KeptCheckpoint]) -> SetResults:
        """What is known now.

        Args:
            checkpoints: Those that are asked for, oldest first.
        """
        scored = tuple(
            CheckpointScores(each.iteration, each.sha256, self._done[each.key], str(each.path))
            for each in checkpoints
            if each.key in self._done
        )
        test = self._set.parts.test
        return SetResults(
            name=self._set.name,
            protocol=self._protocol,
            test_images=test.names,
            truth=as_text(self._fit.truth),
            rivals=self._rivals,
            checkpoints=scored,
            differences=tuple(self._differences(scored[-1])) if scored else (),
            notes=(*self._set.parts.notes, self._about_intervals()),
            left_out=self._set.left_out.as_json(),
        )

    def _about_intervals(self) -> str:
        test = self._set.parts.test
        num_slides = len(set(test.slides))
        if self._fit.by_slide:
            return f"Intervals: over the {num_slides} slides of the test part."
        over = f"Intervals: over the {len(test)} test samples"
        if test.tells_slides:
            what = "slide is" if num_slides == 1 else "slides are"
            return f"{over}, as {num_slides} {what} too few to draw from: nothing on other slides."
        return f"{over} as if each were of another slide; they are too narrow where that is not so."

    def _differences(self, newest: CheckpointScores) -> list[Difference]:
        """The newest checkpoint beside the strongest simple rival, and beside every other one."""
        found = []
        for classifier in CLASSIFIERS:
            simple = [name for name in SIMPLE if name in self._rivals]
            strongest = max(
                simple, key=lambda name: self._of(self._rivals[name], classifier)[0], default=None
            )
            beside = [strongest] if strongest else []
            beside += [name for name in self._rivals if name not in SIMPLE]
            _, own = self._of(newest, classifier)
            for name in beside:
                _, other = self._of(self._rivals[name], classifier)
                difference = paired_difference(
                    self._fit.truth,
                    own,
                    other,
                    self._fit.groups,
                    self._fit.num_classes,
                    self._fit.seed,
                )
                found.append(Difference(classifier, newest.iteration, name, difference))
        return found

    def _of(
        self, each: RivalScores | CheckpointScores, classifier: str
    ) -> tuple[float, NDArray[np.int64]]:
        """Balanced accuracy of a classifier, and what it predicts."""
        scores: Any = getattr(each.scores, classifier)
        return scores.balanced_accuracy.value, as_numbers(scores.predicted)
