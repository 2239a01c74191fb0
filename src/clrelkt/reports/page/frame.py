"""What every page has: style, script, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from clrelkt.reports.figures.drawing import Figure, definitions
from clrelkt.reports.markup import Markup, joined, tag
from clrelkt.reports.theme import figure_css, variables_css

__all__ = ["MAX_BYTES", "figure_panels", "masthead", "page", "section"]

MAX_BYTES = 2 * 2**20
"""No page is larger."""


def page(title: str, header: Markup, sections: Sequence[Markup], footer: Markup) -> str:
    """Return the page. A policy in it forbids requests, and scripts other than its own."""
    css = variables_css() + figure_css() + _read("page.css")
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Markup(css)),
    ]
    shapes = tag("svg", definitions(), width="0", height="0", aria_hidden="true", style=_AWAY)
    body = [
        shapes,
        tag("header", header),
        tag("main", *sections),
        tag("footer", footer),
        tag("div", id="tip", role="status", hidden=True),
        tag("script", Markup(script)),
    ]
    html = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return f"<!doctype html>\n{html}\n"


_AWAY = "position:absolute"
_GAP = 18


def _read(name: str) -> str:
    return resources.files("clrelkt.reports.page").joinpath(name).read_text(encoding="utf-8")


def masthead(kind: str, title: str) -> Markup:
    """Return the head of a page: its kind, its title, and a switch between light and dark."""
    return tag(
        "div",
        tag("div", tag("p", kind, class_="eyebrow"), tag("h1", title)),
        tag("button", "light or dark", type="button", class_="theme", hidden=True),
        class_="top",
    )


def section(id_: str, title: str, *parts: str) -> Markup:
    """Return a section under a heading."""
    return tag("section", tag("h2", title), *parts, id=id_, aria_label=title)


def figure_panels(figure: Figure, legend: Markup | None = None) -> Markup:
    """Return a figure's panels in as many columns as there is room for, and its legend."""
    columns = min(figure.columns, len(figure.panels))
    # As many columns as fit, but no more than a file has.
    least = f"max({figure.narrowest}px,(100% - {_GAP * (columns - 1)}px)/{columns})"
    style = (
        f"grid-template-columns:repeat(auto-fit,minmax(min(100%,{least}),1fr));"
        f"--columns:{min(columns, 3)};max-width:{figure.widest * columns + _GAP * (columns - 1)}px"
    )
    if legend is None and figure.legend is not None:
        drawn = figure.legend
        width = f"width:min(100%,{drawn.width:.0f}px)"
        legend = tag("div", drawn.svg(), class_="legend-line", style=width)
    panels = tag("div", *(panel.svg() for panel in figure.panels), class_="panels", style=style)
    return joined([panels, *([legend] if legend is not None else [])])
