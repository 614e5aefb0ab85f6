"""Step variants that can be timed side by side, and the clock that tells their phases apart."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adios_tme.config.train import TrainConfig
from adios_tme.models.student import Student, as_vit

#: Phases whose arithmetic is the student's, or its teacher's.
STUDENTS_PHASES = (
    "teacher forward",
    "student forward",
    "student backward",
    "frozen student forward",
    "frozen student backward",
)


@dataclass(frozen=True)
class StepVariant:
    """A form of the step, with what it moves."""

    student: Student
    mask_model: nn.Module
    student_optimizer: torch.optim.Optimizer
    mask_optimizer: torch.optim.Optimizer
    step: Callable[[Tensor], object]
    """Updates both on a batch of normalised images."""
    teacher: Student | None = None
    """Of the objective, if it has one."""


BuildVariant = Callable[[TrainConfig, torch.device], StepVariant]


class Lap(NamedTuple):
    """One timed step."""

    seconds: float
    phases: dict[str, float]
    """Seconds of each."""


class Clock:
    """Times steps on the device that does them, phase by phase, without a word in the step.

    It hangs on the networks and optimisers: a phase ends where the mask model, the student or an
    update begins or ends, and where the gradient arrives at the masks. On CUDA it records events
    and waits once, after the step.
    """

    def __init__(self, variant: StepVariant, device: torch.device) -> None:
        self._variant = variant
        self._device = device
        self._marks: list[tuple[str, Any]] = []
        self._student_has_moved = False
        self._in_student = False

    def time(self, images_BCHW: Tensor) -> Lap:
        """Do one step."""
        self._marks, self._student_has_moved = [], False
        with self._attached():
            self._mark("")
            self._variant.step(images_BCHW)
            self._mark("rest")
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        phases: dict[str, float] = defaultdict(float)
        for (_, start), (name, end) in zip(self._marks, self._marks[1:], strict=False):
            phases[name] += self._between(start, end)
        return Lap(self._between(self._marks[0][1], self._marks[-1][1]), dict(phases))

    def _mark(self, ended: str) -> None:
        moment: Any = time.perf_counter()
        if self._device.type == "cuda":
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((ended, moment))

    def _between(self, start: Any, end: Any) -> float:
        if self._device.type == "cuda":
            return float(start.elapsed_time(end)) / 1000
        return float(end - start)

    @contextmanager
    def _attached(self) -> Iterator[None]:
        one = self._variant
        encoder = as_vit(one.student.encoder, "the time of each phase")
        with ExitStack() as hooks:
            for handle in (
                one.mask_model.register_forward_pre_hook(self._masks_begin),
                one.mask_model.register_forward_hook(self._masks_end),
                # The first module that a view meets and the last one, whoever calls them; where
                # patches are read, the encoder itself is the last one.
                encoder.patch_embed.register_forward_pre_hook(self._student_begins),
                encoder.register_forward_hook(self._student_ends),
                one.student.head.register_forward_hook(self._student_ends),
                one.student_optimizer.register_step_pre_hook(self._student_update_begins),
                one.student_optimizer.register_step_post_hook(self._student_update_ends),
                one.mask_optimizer.register_step_pre_hook(self._mask_update_begins),
                one.mask_optimizer.register_step_post_hook(self._mask_update_ends),
            ):
                hooks.callback(handle.remove)
            if teacher := one.teacher:
                patches = as_vit(teacher.encoder, "the time of each phase").patch_embed
                begins = patches.register_forward_pre_hook(self._student_begins)
                hooks.callback(begins.remove)
                hooks.callback(teacher.head.register_forward_hook(self._teacher_ends).remove)
            yield

    def _masks_begin(self, *_: object) -> None:
        self._mark("rest")

    def _masks_end(self, _module: nn.Module, _inputs: object, masks_BNHW: Tensor) -> None:
        self._mark("mask forward")
        if masks_BNHW.requires_grad:
            masks_BNHW.register_hook(lambda _: self._mark("frozen student backward"))

    def _student_begins(self, *_: object) -> None:
        if not self._in_student:
            self._mark("views")
        self._in_student = True

    def _student_ends(self, *_: object) -> None:
        self._mark("frozen student forward" if self._student_has_moved else "student forward")
        self._in_student = False

    def _teacher_ends(self, *_: object) -> None:
        self._mark("teacher forward")
        self._in_student = False

    def _student_update_begins(self, *_: object) -> None:
        self._mark("student backward")

    def _student_update_ends(self, *_: object) -> None:
        self._mark("student update")
        self._student_has_moved = True

    def _mask_update_begins(self, *_: object) -> None:
        self._mark("mask backward")

    def _mask_update_ends(self, *_: object) -> None:
        self._mark("mask update")
