"""One account of what was not taken from some place, or not as it is: how many, why, what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from adios_tme.data.members import printable

NUM_EXAMPLES = 2
#: With what a sentence on something begins that is not used.
LEFT_OUT = "Left out"

#: Why something is left out. Each has an entry in `REASONS`.
Reason = Literal[
    "rule",
    "thumbnail",
    "unlisted",
    "unnamed",
    "junk",
    "own",
    "not_an_image",
    "archive_kind",
    "packing",
    "encrypted",
    "unsafe_name",
    "not_regular",
    "misplaced",
    "unreadable",
    "slide_without_scale",
    "not_a_slide",
    "no_tile",
    "unread_level",
    "unread_tile",
    "uneven_scale",
    "too_coarse",
    "colour_profile",
    "label_alone",
    "neither_tiff_nor_xml",
    "void",
    "few_vertices",
    "other_shape",
    "outside_image",
    "rescaled",
    "pickled_tissues",
]


class Explanation(NamedTuple):
    """What is told of a reason."""

    words: str
    """What was left out, after its number: "3 files that an operating system made"."""
    advice: str
    """What to do about it; empty where nothing has to be done."""
    is_urgent: bool = False
    """Whether it is most likely a mistake that somebody has to know of."""
    is_used: bool = False
    """Whether it is used all the same, in another way than it is written."""


REASONS: dict[Reason, Explanation] = {
    "rule": Explanation(
        "images whose names do not follow the rule",
        "Take every image with --all, or choose with --patch-size-px or --pattern.",
    ),
    "thumbnail": Explanation("images of another size, by _224_ in their names", ""),
    "unlisted": Explanation("images that the list does not name", ""),
    "unnamed": Explanation(
        "patches that the list names and their archives do not hold", "Write the list again.", True
    ),
    "junk": Explanation("files or folders that an operating system put beside others", ""),
    "own": Explanation("pictures or output folders that adios-tme wrote", ""),
    "not_an_image": Explanation(
        "files that are not images", "Images end in .png, .jpg, .jpeg, .webp, .tif or .tiff."
    ),
    "archive_kind": Explanation(
        "archives of a kind that is not read", "Unpack them, or pack them as .zip or .tar.", True
    ),
    "packing": Explanation(
        "patches packed by a method that is not read",
        "Write their archives again, stored or deflated.",
        True,
    ),
    "encrypted": Explanation(
        "patches that are encrypted", "Write their archives again without a password.", True
    ),
    "unsafe_name": Explanation(
        "patches whose names lead out of their archives", "Write them under other names.", True
    ),
    "not_regular": Explanation(
        "links, devices or files without access among the images", "Remove or mend them.", True
    ),
    "misplaced": Explanation(
        "patches that overlap others or reach beyond their archives",
        "Write those archives again.",
        True,
    ),
    "unreadable": Explanation(
        "archives or folders that cannot be read", "Mend or remove them.", True
    ),
    "slide_without_scale": Explanation(
        "whole slides, which are read at a stated scale alone",
        "Give --mpp, such as --mpp 0.25, or cut them into patches with adios-tme tile.",
        True,
    ),
    "not_a_slide": Explanation(
        "archives or folders of images beside the whole slides", "Give them apart, without --mpp."
    ),
    "no_tile": Explanation(
        "slides without a tile of tissue",
        "Look at them with --previews; --tissue none takes every tile, --min-tissue fewer or more.",
        True,
    ),
    "unread_level": Explanation(
        "levels of slides that cannot be read, in place of which a finer one is",
        "",
        True,
        is_used=True,
    ),
    "unread_tile": Explanation(
        "tiles of slides that cannot be read, of sixteen that were tried of each",
        "Copy or export those slides again; what cannot be read is replaced in training.",
        True,
    ),
    "uneven_scale": Explanation(
        "slides whose pixels are not square, which are read as if they were", "", True, is_used=True
    ),
    "too_coarse": Explanation(
        "slides that were scanned at a coarser scale than asked for, whose tiles are enlarged",
        "Raise --mpp, or keep them apart.",
        True,
        is_used=True,
    ),
    "colour_profile": Explanation(
        "colour profiles of slides, whose colours are read as stored",
        "--icc converts them to sRGB.",
        is_used=True,
    ),
    "label_alone": Explanation("labels without an image", "Add the image, or remove the label."),
    "neither_tiff_nor_xml": Explanation(
        "files that are neither TIFF nor XML", "Images of this layout are TIFF, outlines XML."
    ),
    "void": Explanation(
        "labels with numbers below 0, whose pixels are void and count in no score",
        "Write 0 where somebody looked and there is no nucleus.",
        is_used=True,
    ),
    "few_vertices": Explanation("outlines of fewer than three vertices", "Draw them again."),
    "other_shape": Explanation(
        "outlines that are arrows, rulers or unknown shapes", "Nuclei are polygons or ellipses."
    ),
    "outside_image": Explanation(
        "outlines outside of their image", "Check that outlines and image have the same scale."
    ),
    "rescaled": Explanation(
        "arrays of images from 0 to 1, which were multiplied by 255",
        "Save them as 0 to 255.",
        is_used=True,
    ),
    "pickled_tissues": Explanation(
        "lists of tissues that are pickled and so not read, tissues are not reported",
        "np.save(path, np.load(path, allow_pickle=True).astype(str)) converts them.",
    ),
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

    def merge(self, other: Self, place: str = "") -> None:
        """Take in another account.

        Args:
            other: The account.
            place: Where its examples lie, as a path; empty: as they say.
        """
        for reason, entry in other._entries.items():
            examples = [f"{place}/{name}" if place else name for name in entry.examples]
            self.add(reason, examples, entry.count)

    def dump(self) -> str:
        """All that `parse` needs, in few bytes; empty where nothing is left out."""
        entries = {reason: [entry.count, entry.examples] for reason, entry in self._entries.items()}
        return json.dumps(entries, separators=(",", ":")) if entries else ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote; reasons that this version does not know are passed over.

        Raises:
            ValueError: If it is something else.
        """
        account = cls()
        entries = json.loads(text or "{}")
        if not isinstance(entries, dict):
            raise ValueError(f"no account: {text[:40]!r}")
        for reason in REASONS:
            match entries.get(reason):
                case None:
                    continue
                case [int(count), [*examples]] if all(isinstance(name, str) for name in examples):
                    account.add(reason, examples, count)
                case _:
                    raise ValueError(f"no account: {text[:40]!r}")
        return account

    def count(self, reason: Reason) -> int:
        """How many were left out for a reason."""
        return self._entries[reason].count if reason in self._entries else 0

    def lines(self) -> list[str]:
        """A sentence for each reason, for the terminal and the log, as in "Left out: 3 files"."""
        return [line for _, line in self.items()]

    def items(self) -> Iterator[tuple[Reason, str]]:
        """Each reason with its sentence, in the order of `REASONS`."""
        for reason in REASONS:
            if reason in self._entries:
                yield reason, self._line(reason, self._entries[reason])

    def as_json(self) -> list[dict[str, Any]]:
        """Plain values, one entry a reason, in the order of `REASONS`."""
        return [
            {
                "reason": reason,
                "count": entry.count,
                "examples": [printable(name) for name in entry.examples],
                "words": REASONS[reason].words,
                "advice": REASONS[reason].advice,
            }
            for reason in REASONS
            if (entry := self._entries.get(reason))
        ]

    def _line(self, reason: Reason, entry: _Entry) -> str:
        shown = ", ".join(printable(name) for name in entry.examples)
        words, advice, _, is_used = REASONS[reason]
        told = f"{entry.count:,} {words} ({shown}).{advice and ' '}{advice}"
        return f"{'Note' if is_used else LEFT_OUT}: {told}"


def from_json(entries: Iterable[dict[str, Any]]) -> LeftOut:
    """The account that `LeftOut.as_json` gave as plain values."""
    account = LeftOut()
    for entry in entries:
        account.add(entry["reason"], entry["examples"], entry["count"])
    return account
