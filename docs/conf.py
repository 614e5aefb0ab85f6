"""Sphinx settings; the command page is generated from the command itself."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import adios_tme

sys.path.insert(0, str(Path(__file__).parent))  # for what stands beside this file

project = "adios_tme"
author = "The adios_tme authors"
copyright = f"2026, {author}"
release = adios_tme.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = [
    "_build",
    *(f"studies/*.{part}.md" for part in ("means", "differences", "stopping")),
]

smartquotes = False  # two dashes begin a flag

html_theme = "furo"
html_title = "adios_tme"
html_static_path = ["_static"]
html_css_files = ["pages.css"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpicky = False


page = import_module("command_page").command_page()
Path(__file__).with_name("commands.md").write_text(page, encoding="utf-8")
