"""Formulas as MathML, which browsers draw by themselves: pages need no network and no script."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.errors import SphinxError


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer with Sphinx."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


#: Docutils misreads fractions without braces, and these accents do not fit their letters.
_MISREAD = re.compile(r"\\[dt]?frac(?!{)|\\(bar|hat|tilde|underbrace|overbrace)\b")


def _mathml(tex: str, *, as_block: bool = False) -> str:
    """A formula as MathML.

    Raises:
        SphinxError: If it would be shown as another one.
    """
    if found := _MISREAD.search(tex):
        raise SphinxError(
            f"{tex}: {found[0]} would be shown wrongly. Write fractions as \\tfrac{{1}}{{2}} and "
            f"accents as \\overline{{z}}."
        )
    return str(latex2mathml.tex2mathml(tex, as_block=as_block))


def _visit_inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_mathml(node.astext()))
    raise nodes.SkipNode


def _visit_block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(_mathml(node.astext(), as_block=True))
    raise nodes.SkipNode
