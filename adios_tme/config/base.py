"""What all settings share: strictness, immutability, and help taken from the docstrings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from adios_tme.errors import ConfigError


class Config(BaseModel):
    """A frozen section of settings.

    The docstring under a field is its help text. The leaf name is the flag on the command line, so
    leaf names are unique within the tree of one command.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        # What a file has as a number may be text here, as in `nproc_per_node: 4`.
        coerce_numbers_to_str=True,
        validate_default=True,
        # A setting may be called model_something without pydantic claiming the prefix.
        protected_namespaces=(),
    )

    def __init__(self, **given: Any) -> None:
        """Take settings by name.

        Raises:
            ConfigError: With one line per mistake.
        """
        try:
            super().__init__(**given)
        except ValidationError as error:
            from adios_tme.config.load import explain  # which knows this class

            raise ConfigError(explain(error, type(self))) from error

    # Sections inside of others are made by pydantic without this method, as by its own, so that the
    # mistakes of all are told together.
    __init__.__dict__["__pydantic_base_init__"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in type(self).model_fields:
            raise AttributeError(
                f"{type(self).__name__}.{name} is fixed once the settings are made. Make new ones."
            )
        super().__setattr__(name, value)

    @field_validator("*")
    @classmethod
    def _paths_begin_at_home(cls, value: Any) -> Any:
        if isinstance(value, Path):
            return Path(expand_user(str(value)))
        if isinstance(value, tuple):
            return tuple(map(cls._paths_begin_at_home, value))
        return value


def expand_user(path: str) -> str:
    """A path with a leading ``~`` or ``~USER`` replaced by that home; for settings that are texts.

    Every setting of type Path is expanded already. ``~NAME`` stays where there is no such user.
    """
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # no such user: the name begins with a tilde
        return path


def checked_pattern(pattern: str | None) -> str | None:
    """A regular expression, as it was given.

    Raises:
        ValueError: If it is none.
    """
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression ({error}).") from error
    return pattern


def is_changed(section: Config, name: str) -> bool:
    """Whether a setting differs from its declared default."""
    return bool(getattr(section, name) != type(section).model_fields[name].default)


class Flag:
    """Gives a field another name on the command line: ``Annotated[bool, Flag("json")]``."""

    def __init__(self, name: str) -> None:
        self.name = name


class Shapes:
    """Marks what a setting decides; one without the mark decides nothing of the kind.

    Used as ``depth: Annotated[int, Shapes("weights")]``. What shapes the weights shapes the step.

    Args:
        what: ``weights`` where saved tensors (networks and optimiser states) have another form with
            another value, ``step`` where only the step's work is another.
    """

    def __init__(self, what: Literal["weights", "step"]) -> None:
        self.what = what


class Basic:
    """Marks what a first run needs of a section, such as ``lr: Annotated[float, Basic()]``.

    Where a command has such settings, its ``--help`` leaves out the sections' other ones, which
    ``--help-all`` shows.
    """


class OtherNames:
    """What other trainers call a setting: named when one of these is given instead.

    Used as ``lr: Annotated[float, OtherNames("learning_rate")]``.
    """

    def __init__(self, *names: str) -> None:
        self.names = names


#: With what timm's name of a folder of weights begins.
LOCAL_DIR = "local-dir:"


class MayBePath:
    """Marks a text that is a path, but for some words.

    Used as ``tissue: Annotated[str, MayBePath("otsu", "none")]``.

    Args:
        words: Texts that are no paths; one with a colon at its end is the beginning of such texts.
    """

    def __init__(self, *words: str) -> None:
        self.words = words

    def whole(self, given: str) -> str:
        """The text, and where it is or ends in a path, that path from the root on."""
        begins = any(given.startswith(word) for word in self.words if word.endswith(":"))
        before, folder, path = given.partition(LOCAL_DIR)
        if begins and folder:
            return f"{before}{folder}{Path(path).absolute()}"
        return given if begins or given in self.words else str(Path(given).absolute())


class Positional:
    """Marks a field that the command line takes as an argument instead of a flag.

    Used as ``data_path: Annotated[Path, Positional()]``.
    """


def cores_at_hand() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
