"""What classifiers are fitted to and tested on: samples with classes and slides, in two parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from adios_tme.benchmark.probe.metrics import Ints
from adios_tme.benchmark.probe.split import hold_out
from adios_tme.data.left_out import LeftOut
from adios_tme.errors import DataError

Item = TypeVar("Item")
SplitBy = Literal["auto", "slide", "patch"]


@dataclass(frozen=True)
class Samples(Generic[Item]):
    """Labelled samples of one place: images, or features that were written earlier."""

    path: Path
    items: Sequence[Item]
    names: tuple[str, ...]
    """How messages and results call each."""
    labels: tuple[str, ...]
    """The class of each, by its name."""
    slides: tuple[str | None, ...]
    facts: dict[str, Any]
    """What tells this content from another, as plain values."""
    notes: tuple[str, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted(set(self.labels)))

    @property
    def tells_slides(self) -> bool:
        """Whether the slide of each is known."""
        return None not in self.slides

    def numbers(self, classes: Sequence[str]) -> Ints:
        """The class of each sample as its place among the classes."""
        places = {name: number for number, name in enumerate(classes)}
        return np.array([places[label] for label in self.labels], dtype=np.int64)

    def some(self, rows: NDArray[np.integer]) -> Samples[Item]:
        """Samples by their places."""
        picked: list[int] = rows.tolist()
        return replace(
            self,
            items=[self.items[row] for row in picked],
            names=tuple(self.names[row] for row in picked),
            labels=tuple(self.labels[row] for row in picked),
            slides=tuple(self.slides[row] for row in picked),
        )


def check_classes(samples: Samples[Any]) -> None:
    """Raise unless there are two classes or more, with two samples each.

    Raises:
        DataError: Naming what is missing.
    """
    classes = samples.classes
    if len(classes) < 2:
        raise DataError(
            f"{samples.path}: holds only one class ({classes[0]}). "
            f"Give a folder with two folders of classes or more."
        )
    for name in classes:
        if samples.labels.count(name) < 2:
            raise DataError(
                f"{samples.path}: the class {name} has one sample, and each part needs one. "
                f"Add samples to it, or remove it."
            )


@dataclass(frozen=True)
class Parts(Generic[Item]):
    """A set in two parts."""

    train: Samples[Item]
    test: Samples[Item]
    split_by: Literal["folders", "slide", "patch"]
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return self.train.classes


def parts_of(train: Samples[Item], test: Samples[Item]) -> Parts[Item]:
    """Two folders as the two parts.

    Raises:
        DataError: If their classes differ, or there is one class alone.
    """
    check_classes(train)
    if train.classes != test.classes:
        missing = sorted(set(train.classes) - set(test.classes))
        unknown = sorted(set(test.classes) - set(train.classes))
        what = [f"lacks {', '.join(missing)}"] if missing else []
        what += [f"has {', '.join(unknown)} beside them"] if unknown else []
        raise DataError(
            f"{test.path}: its classes are not those of {train.path}: it {' and '.join(what)}. "
            f"Give both parts the same folders."
        )
    notes = [*train.notes, *test.notes]
    if train.tells_slides and test.tells_slides:
        both = sorted({str(slide) for slide in train.slides} & {str(each) for each in test.slides})
        if both:
            notes.append(
                f"Slides stand in both parts ({len(both)}, such as {both[0]}), which makes scores "
                f"too good."
            )
    return Parts(train, test, "folders", tuple(notes))


def held_out_by(
    samples: Samples[Item], split_by: SplitBy, fraction: float, seed: int
) -> Parts[Item]:
    """One folder in two parts, the test part held out by slide or by patch.

    Raises:
        DataError: If it cannot be done.
    """
    check_classes(samples)
    notes = list(samples.notes)
    by_slide = samples.tells_slides if split_by == "auto" else split_by == "slide"
    if by_slide and not samples.tells_slides:
        name = samples.names[samples.slides.index(None)]
        raise DataError(
            f"{samples.path}: {name} tells no slide, so that nothing can be held out by slide. "
            f"Give --slide-pattern, or --split-by patch."
        )
    if not by_slide and not samples.tells_slides:
        num_unknown = samples.slides.count(None)
        notes.append(
            f"Held out by patch: {num_unknown} of {len(samples)} names tell no slide. Patches of "
            f"one slide may stand in both parts, which makes scores too good. Say how names tell "
            f"it with --slide-pattern, or give --test."
        )
    elif not by_slide:
        notes.append("Held out by patch, as asked: slides stand in both parts.")
    slides = [str(slide) for slide in samples.slides] if by_slide else None
    is_test = hold_out(samples.labels, slides, fraction, seed, samples.path)
    train, test = (samples.some(np.flatnonzero(rows)) for rows in (~is_test, is_test))
    return Parts(train, test, "slide" if by_slide else "patch", tuple(notes))
