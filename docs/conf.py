"""Sphinx settings; the command page is generated from the command itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import adios_tme

project = "adios_tme"
author = "The adios_tme authors"
copyright = f"2026, {author}"
release = adios_tme.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "adios_tme"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpicky = False


def write_command_page() -> None:
    """Turn every command's help into one page."""
    page = Path(__file__).with_name("commands.md")
    typer = [sys.executable, "-m", "typer", "adios_tme.cli.app", "utils", "docs"]
    text = subprocess.run(
        [*typer, "--name", "adios-tme", "--title", "Commands"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    page.write_text(text, encoding="utf-8")


write_command_page()
