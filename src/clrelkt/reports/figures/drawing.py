"""What figures are made of: panels of SVG, side by side on a page or together in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clrelkt.errors import MissingExtraError
from clrelkt.files import atomic_file, write_text
from clrelkt.reports.markup import Markup, plain_number, tag
from clrelkt.reports.theme import LIGHT, figure_css

__all__ = ["SHAPES", "Axis", "Figure", "Panel", "definitions", "label", "path", "write_figures"]

_GAP = 14
_PNG_ZOOM = 2


@dataclass(frozen=True, slots=True)
class Panel:
    """A drawing of ``width`` times ``height``; ``name`` says in words what it shows."""

    width: float
    height: float
    name: str
    body: Markup
    class_: str = ""

    def svg(self) -> Markup:
        """Return the drawing for a page, which must have the figures' style and definitions."""
        return tag(
            "svg",
            self.body,
            class_=f"figure {self.class_}".strip(),
            viewBox=f"0 0 {plain_number(self.width)} {plain_number(self.height)}",
            role="img",
            aria_label=self.name,
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that belong together; ``columns`` says how a file arranges them.

    ``name`` is that of its files. ``narrowest`` is the least width of a panel on a page, in pixels,
    and ``widest`` the largest.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    columns: int = 2
    narrowest: int = 300
    widest: int = 560
    legend: Panel | None = None

    def file(self, palette: Mapping[str, str] = LIGHT) -> str:
        """Return all panels as one SVG file that needs nothing else."""
        panels = list(self.panels)
        rows = [panels[at : at + self.columns] for at in range(0, len(panels), self.columns)]
        drawn: list[str] = []
        width, top = 0.0, float(_GAP)
        for row in rows:
            left = float(_GAP)
            for panel in row:
                drawn.append(_moved(panel.body, left, top))
                left += panel.width + _GAP
            width, top = max(width, left), top + max(panel.height for panel in row) + _GAP
        if self.legend is not None:
            drawn.append(_moved(self.legend.body, _GAP, top))
            width = max(width, self.legend.width + 2 * _GAP)
            top += self.legend.height + _GAP
        shown = f"{plain_number(width)} {plain_number(top)}"
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + tag(
            "svg",
            tag("title", self.title),
            tag("style", Markup(figure_css(palette))),
            tag("rect", width=width, height=top, fill=palette["paper"]),
            definitions(),
            *drawn,
            xmlns="http://www.w3.org/2000/svg",
            class_="figure",
            viewBox=f"0 0 {shown}",
            width=width,
            height=top,
        )


def _moved(body: Markup, left: float, top: float) -> Markup:
    return tag("g", body, transform=f"translate({plain_number(left)} {plain_number(top)})")


def _polygon(corners: int, turn: float = 0.0, inner: float | None = None) -> str:
    points = []
    count = corners * (2 if inner else 1)
    for number in range(count):
        angle = 2 * math.pi * number / count + turn - math.pi / 2
        radius = 5.4 if inner is None or number % 2 == 0 else inner
        points.append(f"{radius * math.cos(angle):.2f} {radius * math.sin(angle):.2f}")
    return f"M{'L'.join(points)}Z"


SHAPES: tuple[str, ...] = (
    "M-4.2 0A4.2 4.2 0 1 0 4.2 0A4.2 4.2 0 1 0 -4.2 0Z",
    "M-3.8 -3.8H3.8V3.8H-3.8Z",
    _polygon(3),
    _polygon(4),
    _polygon(3, math.pi),
    _polygon(5, inner=2.4),
    "M-1.7 -5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",
    _polygon(3, math.pi / 2),
    "M-4.6 -2.4L-2.4 -4.6L0 -2.2L2.4 -4.6L4.6 -2.4L2.2 0L4.6 2.4L2.4 4.6L0 2.2L-2.4 4.6L-4.6 2.4"
    "L-2.2 0Z",
    _polygon(6),
    _polygon(3, -math.pi / 2),
    "M-5 2.4A5 5 0 0 1 5 2.4Z",
    _polygon(4, inner=2),
    "M-5.2 -2.2H5.2V2.2H-5.2Z",
    "M-2.2 -5.2H2.2V5.2H-2.2Z",
    "M5 -2.4A5 5 0 0 1 -5 -2.4Z",
)
"""Marks about 10 wide, of about the same area, as the data of SVG paths."""


def definitions() -> Markup:
    """Return the marks under the ids ``s0``, ``s1`` and so on, for ``<use>``."""
    return tag("defs", *(tag("path", id=f"s{n}", d=shape) for n, shape in enumerate(SHAPES)))


def label(x: float, y: float, text: str, class_: str = "") -> Markup:
    """Return a text whose baseline is at ``y``."""
    return tag("text", text, x=x, y=y, class_=class_ or None)


def path(points: Sequence[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    """Return straight lines from point to point."""
    d = "M" + "L".join(f"{plain_number(x)} {plain_number(y)}" for x, y in points)
    return tag("path", d=d + ("Z" if closed else ""), class_=class_)


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to coordinates, with round ticks."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the coordinate of ``value``."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Return about ``wanted`` round values within the scale, both ends allowed."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        raw = span / max(1, wanted)
        power = 10.0 ** math.floor(math.log10(raw))
        step = min((power * m for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / raw)))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def write_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write each figure as SVG and PNG; return the files.

    Raises:
        MissingExtraError: what makes PNG of SVG is not installed.
        StorageError: a file could not be written.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise MissingExtraError("resvg-py", "report") from error
    files = []
    for figure in figures:
        drawn = figure.file()
        write_text(folder / f"{figure.name}.svg", drawn)
        png = resvg_py.svg_to_bytes(
            svg_string=drawn, zoom=_PNG_ZOOM, sans_serif_family="DejaVu Sans"
        )
        with atomic_file(folder / f"{figure.name}.png") as temporary:
            temporary.write_bytes(bytes(png))
        files += [folder / f"{figure.name}.svg", folder / f"{figure.name}.png"]
    return files
