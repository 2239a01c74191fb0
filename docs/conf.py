"""How Sphinx builds these pages: ``make docs``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Literal

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = "clrelkt"
author = "the clrelkt authors"
project_copyright = "the clrelkt authors, Apache-2.0"
release = importlib.metadata.version("clrelkt")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "clrelkt"
html_copy_source = False
html_show_sourcelink = False


def _within(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to files that lie elsewhere in the repository lead to the pages that include them."""
    source[0] = source[0].replace("](../bench/README.md)", "](benchmarks.md)")


def _equation(kind: Literal["inline", "block"]) -> Callable[[HTML5Translator, nodes.Element], None]:
    """Return what writes an equation as MathML, which browsers show without anything fetched."""

    def write(translator: HTML5Translator, node: nodes.Element) -> None:
        translator.body.append(convert(node.astext(), display=kind))
        raise nodes.SkipNode

    return write


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_equation("inline"), None), (_equation("block"), None))
    app.connect("source-read", _within)
