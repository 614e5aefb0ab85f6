"""The documents, what is fenced in them, and the commands that stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


def name_of(document: Path) -> str:
    """Its path in the project, as in `docs/data.md`."""
    return document.relative_to(ROOT).as_posix()


#: All but the page of commands, which is made from the settings whenever the pages are built.
DOCUMENTS = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if name_of(path) != "docs/commands.md" and "_build" not in path.parts
]


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    line: int
    language: str
    """Such as console; of a directive, its name in braces."""
    text: str

    @property
    def where(self) -> str:
        """As an editor opens it."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Of a console: each command, without its comment."""
        lines = self.text.replace("\\\n", " ").splitlines()
        assert all(line.startswith("$ ") for line in lines), f"{self.where}: not a command alone"
        typed = (re.sub(r" +#.*$", "", line.removeprefix("$ ")) for line in lines)
        return [" ".join(part.split()) for line in typed for part in line.split("&&")]


def blocks(text: str, page: str) -> list[Block]:
    """All that is fenced on a page, in its order."""
    fences = re.finditer(r"^(```+)(\S*)[^\n]*\n(.*?)^\1$", text, re.M | re.S)
    return [
        Block(page, text[: fence.start()].count("\n") + 1, fence[2], fence[3]) for fence in fences
    ]


#: Of every document.
BLOCKS = [block for path in DOCUMENTS for block in blocks(path.read_text(), name_of(path))]
