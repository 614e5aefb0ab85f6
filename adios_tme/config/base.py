"""What all settings share: strictness, immutability, and help taken from the docstrings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


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


class Positional:
    """Marks a field that the command line takes as an argument instead of a flag.

    Used as ``data_path: Annotated[Path, Positional()]``.
    """
