"""Commands and names that stand in the documents."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

import adios_tme
from adios_tme.cli.app import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (document.name, line)
    for document in DOCUMENTS
    if document.name != "commands.md"
    for line in re.findall(
        r"(?:^\$|&&|^) *(adios-tme [a-z].*?)(?: +#.*)?$", document.read_text(), re.M
    )
]


def parse(command: Any, words: list[str]) -> None:
    """Let the command line read words without doing what they say."""
    context = command.make_context("adios-tme", words)
    if hasattr(command, "resolve_command"):
        _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(inner, rest)


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_every_command_in_the_documents_is_understood(document: str, line: str) -> None:
    parse(typer.main.get_command(app), shlex.split(line)[1:])


def test_documents_hold_commands() -> None:
    assert {document for document, _ in COMMANDS} >= {"README.md", "tutorial.md", "benchmark.md"}


def test_an_unknown_flag_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(typer.main.get_command(app), ["train", "--no-such-flag"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+\.(?:md|png))\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_public_name_resolves() -> None:
    for name in adios_tme.__all__:
        assert getattr(adios_tme, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = adios_tme.no_such_name
    assert set(adios_tme.__all__) <= set(dir(adios_tme))
