"""How fast several ways are, and beside one of them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from adios_tme.terminal import table


def speed_table(
    speeds: Mapping[str, float], ways: Mapping[str, str], what: str, beside: str, heading: str
) -> Table:
    """A row for each way.

    Args:
        speeds: Of each way, a second.
        ways: What each is called.
        what: Of which speeds are, as in "Images".
        beside: The way that is 1.
        heading: Of the ratios.
    """
    shown = table("Speed", "Way", f"{what}/s", heading)
    for name, speed in speeds.items():
        shown.add_row(ways[name], f"{speed:,.1f}", f"{speed / speeds[beside]:.2f}")
    return shown
