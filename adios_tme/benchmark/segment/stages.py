"""How long each stage of segmenting takes when none runs beside another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.segment.bench import Bench
from adios_tme.inference.segment.blocks import blocks_of
from adios_tme.inference.segment.nuclei import nuclei_of

#: In their order.
STAGES = ("reading", "model", "blending", "nuclei", "writing")


class Clock:
    """Seconds by stage; what a stage spends in another one counts for that one alone.

    Args:
        now: Tells the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._running: list[str] = []
        self._since = 0.0

    def begin(self, name: str) -> None:
        """Go on in a stage, until it ends."""
        self._count()
        self._running.append(name)

    def end(self) -> None:
        """Go on in the stage in which the last one began, if there is one."""
        self._count()
        self._running.pop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what the block takes."""
        self.begin(name)
        yield
        self.end()

    def _count(self) -> None:
        now = self._now()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def stage_seconds(bench: Bench) -> tuple[dict[str, float], int]:
    """Segment the blocks once, stage after stage; the number of nuclei, too."""
    clock, predict = Clock(), bench.predict

    def masks_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with clock.stage("blending"):
            return predict(pixels)

    blocks = blocks_of(bench.view, bench.cores, bench.grid, masks_of)
    with _model_timed(bench, clock), bench.files() as files:
        for _ in bench.cores:
            with clock.stage("reading"):
                block = next(blocks)
            with clock.stage("nuclei"):
                found = list(nuclei_of(block, bench.view, bench.chosen))
            with clock.stage("writing"):
                files.add(found)
    return clock.seconds, files.num_nuclei


@contextmanager
def _model_timed(bench: Bench, clock: Clock) -> Iterator[None]:
    """Count what the model itself takes, which is called from within another stage."""

    def begin(*_: object) -> None:
        bench.wait()
        clock.begin("model")

    def end(*_: object) -> None:
        bench.wait()
        clock.end()

    with ExitStack() as hooks:
        hooks.callback(bench.generator.register_forward_pre_hook(begin).remove)
        hooks.callback(bench.generator.register_forward_hook(end).remove)
        yield
