"""Where a run's messages go: the terminal, and train.log in its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from adios_tme.run_folder.layout import LOG

#: Parent of every logger in the package.
LOGGER = logging.getLogger("adios_tme")


@contextmanager
def run_log(output_dir: Path, *, writes: bool = True) -> Iterator[Console]:
    """Send the package's messages to stderr and to ``train.log`` while the block runs.

    Args:
        output_dir: Folder of the run.
        writes: Whether this process speaks for the run; the others stay silent.

    Returns:
        The terminal, to draw on without crossing the messages.
    """
    console = Console(stderr=True)
    if not writes:
        yield console
        return
    file = _LogFile(output_dir / LOG)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    with _sent_to(file, _terminal(console)):
        yield console


@contextmanager
def terminal_log() -> Iterator[None]:
    """Send the package's messages to stderr alone while the block runs: those of a launcher."""
    with _sent_to(_terminal(Console(stderr=True))):
        yield


class _LogFile(logging.Handler):
    """Appends to a file; a message that a full disk does not take is on the terminal, too."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        with suppress(OSError), self.path.open("ab") as file:
            file.write(line)


def _terminal(console: Console) -> logging.Handler:
    return RichHandler(console=console, show_path=False, markup=False, log_time_format="%H:%M:%S")


@contextmanager
def _sent_to(*handlers: logging.Handler) -> Iterator[None]:
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()
        LOGGER.setLevel(level)
