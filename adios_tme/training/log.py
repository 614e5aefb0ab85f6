"""Where a run's messages go: the terminal, and train.log in its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

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
    file = logging.FileHandler(output_dir / "train.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = RichHandler(
        console=console, show_path=False, markup=False, log_time_format="%H:%M:%S"
    )
    handlers = (file, terminal)
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield console
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()
        LOGGER.setLevel(level)
