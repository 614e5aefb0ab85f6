"""The page of all commands and their settings, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from adios_tme.cli.app import app
from adios_tme.cli.options import Described, described

INTRODUCTION = """# Commands and their settings

Every flag is written with dashes or underscores. `--config FILE.yaml` takes the same names; flags
win over the file, and the file over the defaults. The settings of a run are kept in its
`config.yaml`, which `--config` takes back. A word in angle brackets says what a flag takes.
"""


def command_page() -> str:
    """All commands in the order of ``adios-tme --help``, as Markdown."""
    return "\n".join([INTRODUCTION, *_command(typer.main.get_command(app), ["adios-tme"])])


def _command(command: Any, words: list[str]) -> Iterator[str]:
    if len(words) > 1:
        yield f"## {' '.join(words)}\n"
        yield f"{command.help}\n"
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _command(inner, [*words, name])
    if hasattr(command, "config_class"):
        settings = list(described(command.config_class))
        arguments = [each.name for each in settings if not each.kind]
        yield f"```console\n$ {' '.join([*words, *arguments, '[FLAGS]'])}\n```\n"
        yield from _groups(settings)


def _groups(settings: list[Described]) -> Iterator[str]:
    """The settings of a first run, then the rest in the groups of ``--help-all``."""
    groups: dict[str, list[Described]] = {"Arguments": [], "Main": []}
    is_long = not all(each.is_basic for each in settings)
    for each in settings:
        comes_first = is_long and each.is_basic and each.kind
        groups.setdefault("Main" if comes_first else each.panel, []).append(each)
    for panel, members in groups.items():
        if members:
            yield f"**{panel}**\n"
        for each in members:
            text = each.text.replace("[", "\\[")  # choices and defaults are no links
            yield f"`{f'{each.name} {each.kind}'.strip()}`\n: {text}\n"
