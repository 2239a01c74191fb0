"""Colours, in one place: light and dark, told apart by the colour-blind too.

Categories use the hues of Okabe and Ito (Color Universal Design, 2008), darker or lighter as the
background needs; hues that the colour-blind take for one another differ in lightness. No figure
tells anything by colour alone: documents have letters, languages and stages shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

__all__ = ["DARK", "LIGHT", "figure_css", "variables_css"]

LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#ffffff",
        "raised": "#f5f6f8",
        "ink": "#1a1e24",
        "muted": "#59626e",
        "line": "#dfe3e8",
        "faint": "#c2c9d1",
        "accent": "#00609a",
        "good": "#007a58",
        "bad": "#b34700",
        "dark": "#12151a",
        "c0": "#0072b2",
        "c1": "#c44400",
        "c2": "#00a47a",
        "c3": "#a8327f",
        "c4": "#dc9e00",
        "c5": "#56b4e9",
        "c6": "#46308f",
        "c7": "#4f3d00",
    }
)

DARK: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#12151a",
        "raised": "#1b2027",
        "ink": "#e9ecf0",
        "muted": "#a3adb9",
        "line": "#2d343d",
        "faint": "#4d5763",
        "accent": "#6cbcf0",
        "good": "#43cfa2",
        "bad": "#ff9b57",
        "dark": "#12151a",
        "c0": "#4a9fe0",
        "c1": "#f07830",
        "c2": "#3ddbb0",
        "c3": "#d873b8",
        "c4": "#ffd257",
        "c5": "#a9defc",
        "c6": "#8262f2",
        "c7": "#94782a",
    }
)


def variables_css() -> str:
    """Return both palettes as CSS variables: as the reader's system is set, or has chosen."""

    def block(palette: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in palette.items())

    return (
        f":root{{color-scheme:light;{block(LIGHT)}}}\n"
        "@media screen and (prefers-color-scheme:dark){"
        f":root:not([data-theme=light]){{color-scheme:dark;{block(DARK)}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{block(DARK)}}}}}\n"
    )


def figure_css(palette: Mapping[str, str] | None = None) -> str:
    """Return the rules of all figures; with a palette they need no variables."""
    css = (
        resources.files("clrelkt.reports.figures")
        .joinpath("figures.css")
        .read_text(encoding="utf-8")
    )
    if palette is None:
        return css
    return re.sub(r"var\(--([a-z0-9]+)\)", lambda found: palette[found.group(1)], css)
