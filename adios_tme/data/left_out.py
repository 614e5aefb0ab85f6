"""One account of what was not taken from some place: how many, why, two examples, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from adios_tme.data.members import printable

NUM_EXAMPLES = 2

#: Why something is left out. Each has an entry in `REASONS`.
Reason = Literal["junk", "not_an_image", "unreadable"]


class Explanation(NamedTuple):
    """What is told of a reason."""

    words: str
    """What was left out, after its number: "3 files that an operating system made"."""
    advice: str
    """What to do about it; empty where nothing has to be done."""


REASONS: dict[Reason, Explanation] = {
    "junk": Explanation("files that an operating system put beside others", ""),
    "not_an_image": Explanation(
        "files that are not images", "Images end in .png, .jpg, .jpeg, .webp, .tif or .tiff."
    ),
    "unreadable": Explanation("archives or folders that cannot be read", "Mend or remove them."),
}


@dataclass
class _Entry:
    count: int = 0
    examples: list[str] = field(default_factory=list)


class LeftOut:
    """Counts what is left out, by reason."""

    def __init__(self) -> None:
        self._entries: dict[Reason, _Entry] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, reason: Reason, examples: Iterable[str], count: int = 1) -> None:
        """Count something.

        Args:
            reason: Why.
            examples: Names; the first two over all calls are kept.
            count: How many there are, if more than are named.
        """
        if count < 1:
            return
        entry = self._entries.setdefault(reason, _Entry())
        entry.count += count
        for name in examples:
            if len(entry.examples) < NUM_EXAMPLES:
                entry.examples.append(name)

    def merge(self, other: Self) -> None:
        """Take in another account."""
        for reason, entry in other._entries.items():
            self.add(reason, entry.examples, entry.count)

    def count(self, reason: Reason) -> int:
        """How many were left out for a reason."""
        return self._entries[reason].count if reason in self._entries else 0

    def lines(self) -> list[str]:
        """A sentence for each reason, for the terminal and the log."""
        return [self._line(reason, entry) for reason, entry in self._entries.items()]

    def as_json(self) -> list[dict[str, Any]]:
        """Plain values, one entry a reason."""
        return [
            {
                "reason": reason,
                "count": entry.count,
                "examples": [printable(name) for name in entry.examples],
                "words": REASONS[reason].words,
                "advice": REASONS[reason].advice,
            }
            for reason, entry in self._entries.items()
        ]

    def _line(self, reason: Reason, entry: _Entry) -> str:
        shown = ", ".join(printable(name) for name in entry.examples)
        words, advice = REASONS[reason]
        return f"{entry.count:,} {words} ({shown}).{advice and ' '}{advice}"
