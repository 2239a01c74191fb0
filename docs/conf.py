"""How Sphinx builds these pages: ``make docs``."""

from __future__ import annotations

import importlib.metadata

from sphinx.application import Sphinx

project = "clrelkt"
author = "the clrelkt authors"
project_copyright = "the clrelkt authors, Apache-2.0"
release = importlib.metadata.version("clrelkt")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
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
html_title = "clrelkt"
html_copy_source = False
html_show_sourcelink = False


def _within(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to files that lie elsewhere in the repository lead to the pages that include them."""
    source[0] = source[0].replace("](../bench/README.md)", "](benchmarks.md)")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _within)
