"""The terminal, as every command writes to it."""

from __future__ import annotations

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """A console that shows text as it is, in tables and titles, too.

    Names of patches, paths and messages may hold brackets or colons that rich would otherwise take
    for markup or for the code of an emoji. Colour is asked for by ``style``.

    Args:
        stderr: Write to stderr instead of stdout.
    """
    return Console(stderr=stderr, soft_wrap=True, markup=False, emoji=False, highlight=False)
