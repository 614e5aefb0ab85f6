"""The terminal, as every command writes to it: text as it is, one style of bars and tables."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def terminal(*, stderr: bool = False) -> Console:
    """A console that shows text as it is, in tables and titles, too.

    Names of patches, paths and messages may hold brackets or colons that rich would otherwise take
    for markup or for the code of an emoji. What the terminal's encoding does not have is escaped.
    Colour is asked for by ``style``.

    Args:
        stderr: Write to stderr instead of stdout.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return Console(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)


def command(*words: object) -> str:
    """The line of a command of this package that a shell takes as it stands, whatever the paths."""
    return shlex.join(["adios-tme", *map(str, words)])


def print_json(values: object) -> None:
    """Print plain values on stdout as JSON that every terminal can show."""
    terminal().print_json(json.dumps(values), ensure_ascii=True)


def tell_left_out(sentences: Iterable[str]) -> None:
    """Say what was left out, or is noted: a line for each reason, its first words in yellow."""
    console = terminal()
    for sentence in sentences:
        heading, _, told = sentence.partition(": ")
        console.print(f"{heading}:", style="yellow", end=" ")
        console.print(told)


def table(title: str, *columns: str, numbers: bool = True) -> Table:
    """A table, narrow enough for a terminal of eighty columns.

    Args:
        title: What it shows.
        columns: Headings; the first column names its row.
        numbers: Whether the other columns hold numbers, not text.
    """
    empty = Table(
        title=title,
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for place, heading in enumerate(columns):
        empty.add_column(heading, justify="right" if numbers and place else "left")
    return empty


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr if it is a terminal; the callback takes what is done and the total."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


class Count:
    """Counts what is done, one at a time, for a callback of `progress_bar`.

    Args:
        on_progress: Takes what is done and the total; None: nobody looks.
        total: All there is to do.
    """

    def __init__(self, on_progress: Callable[[int, int], None] | None, total: int) -> None:
        self._on_progress = on_progress
        self._total = total
        self._done = 0

    def __call__(self) -> None:
        """One more is done."""
        self._done += 1
        if self._on_progress:
            self._on_progress(self._done, self._total)


class TrainingBar:
    """Iterations of a run and its newest line of metrics, on a terminal.

    Args:
        console: Where the log goes, too, so that both do not cross.
        completed: Iterations done before.
        total: All of them.
        shown: Whether this process speaks for the run.
    """

    def __init__(self, console: Console, completed: int, total: int, *, shown: bool) -> None:
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[line]}"),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._bar = self._progress.add_task("training", total=total, completed=completed, line="")

    def start(self) -> None:
        """Show it."""
        self._progress.start()

    def stop(self) -> None:
        """Leave it as it is."""
        self._progress.stop()

    def update(self, completed: int, line: str | None = None) -> None:
        """Move on, and show another line where there is one."""
        self._progress.update(self._bar, completed=completed)
        if line is not None:
            self._progress.update(self._bar, line=line)
