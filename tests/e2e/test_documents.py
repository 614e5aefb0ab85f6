"""Commands and names that stand in the documents."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

import adios_tme
from adios_tme.benchmark.nuclei.pannuke import PanNuke
from adios_tme.cli.app import app
from adios_tme.config.data import PatchSelection
from tests.documents import BLOCKS, DOCUMENTS, ROOT, name_of
from tests.factories import make_archive

COMMANDS = [
    (block.where, command)
    for block in BLOCKS
    if block.language == "console"
    for command in block.commands
    if command.startswith("adios-tme ")
]


def parse(command: Any, words: list[str]) -> None:
    """Let the command line read words without doing what they say."""
    context = command.make_context("adios-tme", words)
    if hasattr(command, "resolve_command"):
        _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(inner, rest)


@pytest.mark.parametrize(("where", "line"), COMMANDS)
def test_every_command_in_the_documents_is_understood(where: str, line: str) -> None:
    parse(typer.main.get_command(app), shlex.split(line)[1:])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_are_not_wider_than_a_page(document: Path) -> None:
    lines = re.findall(r"^\$ .*$", document.read_text(), re.M)
    assert [line for line in lines if len(line) > 92] == []


def test_documents_hold_commands() -> None:
    pages = {where.partition(":")[0] for where, _ in COMMANDS}
    assert pages >= {"README.md", "docs/tutorial.md", "docs/benchmark.md"}


def test_an_unknown_flag_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(typer.main.get_command(app), ["train", "--no-such-flag"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+\.(?:md|png))\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_tests_and_modules_that_documents_name_are_there() -> None:
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for document in DOCUMENTS:
        text = document.read_text()
        for file, name in re.findall(r"(test_\w+\.py)(?:::(\w+))?", text):
            assert file in tests, f"{document.name}: {file}"
            assert f"def {name}" in tests[file], f"{document.name}: {file}::{name}"
        for path in re.findall(r"`((?:adios_tme|docs|tests)/[\w/]+\.\w+)`", text):
            assert (ROOT / path).exists(), f"{document.name}: {path}"


def test_messages_that_the_questions_quote_are_those_of_the_code() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "adios_tme").rglob("*.py")))
    code = re.sub(r'"\s*f?"', "", code)  # a message goes on over several lines
    quoted = re.findall(r'^## "(.*)"$', (ROOT / "docs" / "faq.md").read_text(), re.M)
    assert len(quoted) > 4
    for message in quoted:
        parts = re.split(r"\.\.\.|\d[\d.]*|vit_base|student", message)
        for part in (part.strip() for part in parts if len(part.strip()) > 8):
            assert part in code, (message, part)


def test_every_public_name_resolves() -> None:
    for name in adios_tme.__all__:
        assert getattr(adios_tme, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = adios_tme.no_such_name
    assert set(adios_tme.__all__) <= set(dir(adios_tme))


def run_script(name: str, *arguments: str | Path) -> None:
    script = ROOT / "docs" / "benchmarks" / name
    subprocess.run([sys.executable, script, *map(str, arguments)], check=True, timeout=240)


def test_patches_are_cut_into_patches_that_can_be_indexed(tmp_path: Path) -> None:
    make_archive(tmp_path / "patches" / "slide_1.zip", num_patches=2, size_px=40)
    run_script("cut_patches.py", tmp_path / "patches", tmp_path / "cuts", "--side", "16")
    index = adios_tme.build_index(tmp_path / "cuts", PatchSelection(patch_size_px=16))
    places = [index.patch(row).coordinates for row in range(len(index))]
    assert places == [(x + left, top) for x in (0, 448) for top in (0, 16) for left in (0, 16)]


def test_a_generated_pannuke_is_read_as_one(tmp_path: Path) -> None:
    run_script("large_pannuke.py", tmp_path, "--images", "3")
    images = PanNuke(tmp_path)
    assert len(images) == 3
    assert images[2].labels.max() > 10
    assert images[1].tissue == "Colon"
