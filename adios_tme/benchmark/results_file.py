"""The JSON file of a measurement: checked before it begins, whole whenever it is looked at."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adios_tme.errors import DataError
from adios_tme.files import check_output, write_whole, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


SomeResults = TypeVar("SomeResults")


def write_beside(
    path: Path,
    results: SomeResults,
    table: Callable[[SomeResults, Path], None],
    picture: Callable[[SomeResults], Figure],
) -> None:
    """Write a measurement as ``.csv``, ``.png`` and ``.svg`` beside its JSON file.

    Raises:
        DataError: If one cannot be written.
    """
    from adios_tme.viz.figure import save_figure

    with writing(path.with_suffix(".csv")):
        table(results, path.with_suffix(".csv"))
    figure = picture(results)
    for suffix in (".png", ".svg"):
        with writing(path.with_suffix(suffix)):
            save_figure(figure, path.with_suffix(suffix))


@dataclass(frozen=True)
class ResultsFile:
    """Where results go, if anywhere."""

    path: Path | None

    @classmethod
    def checked(cls, path: Path | None) -> ResultsFile:
        """The file that settings name, once it is known that it can be written.

        Raises:
            DataError: If it cannot be.
        """
        if path is not None:
            check_output(path)
        return cls(path)

    def write(self, results: dict[str, Any]) -> None:
        """Write results in place of those that are there.

        Raises:
            DataError: If they cannot be written; what was there stays.
        """
        if self.path is None:
            return
        text = json.dumps(results, indent=2) + "\n"
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and not self.path.is_file():
                self.path.write_text(text, encoding="utf-8")  # a pipe or a device stays what it is
            else:
                write_whole(self.path.resolve(), text)

    def try_to_write(self, results: dict[str, Any]) -> None:
        """Write results that are not all yet; a failure is a warning, as they are kept."""
        try:
            self.write(results)
        except DataError as error:
            logger.warning("%s The measurement goes on.", error)
