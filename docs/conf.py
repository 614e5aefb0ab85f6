"""Sphinx settings; the command page is generated from the command itself."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import adios_tme

project = "adios_tme"
author = "The adios_tme authors"
copyright = f"2026, {author}"
release = adios_tme.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

smartquotes = False  # two dashes begin a flag

html_theme = "furo"
html_title = "adios_tme"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpicky = False


sys.path.insert(0, str(Path(__file__).parent))
page = import_module("command_page").command_page()
Path(__file__).with_name("commands.md").write_text(page, encoding="utf-8")
