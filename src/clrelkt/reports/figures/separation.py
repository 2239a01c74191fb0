"""How alike questions are to their gold and to everything else, before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clrelkt.evaluation.separation import BINS, Separation
from clrelkt.reports.figures.drawing import Axis, Figure, Panel, label, path
from clrelkt.reports.markup import Markup, joined, tag
from clrelkt.training.portrait import Portrait

__all__ = ["separation_figure"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT = 270.0, 168.0, 8.0, 8.0
_ROW, _TOP = 50.0, 32.0
_MERGED = 4
_GOLD, _OTHER = "c1", "c0"


def separation_figure(portrait: Portrait) -> Figure:
    """Return a panel a language: the encoder before training, and the language's own after."""
    before = portrait.encoders[0]
    pairs = {
        code: (portrait.separation[before][code], portrait.separation[own][code])
        for code, own in portrait.own.items()
    }
    axis = _axis([separation for pair in pairs.values() for separation in pair])
    panels = [_panel(code, *pair, axis) for code, pair in pairs.items()]
    return Figure(
        "similarities",
        "Cosine of questions with their gold and with others",
        tuple(panels),
        columns=4,
        narrowest=230,
        widest=340,
        legend=_legend(portrait.pool),
    )


def _axis(separations: Sequence[Separation]) -> Axis:
    seen = np.sum([np.add(s.gold, s.other) for s in separations], axis=0)
    occupied = np.flatnonzero(seen > seen.sum() * 1e-5)
    low, high = (occupied[[0, -1]] + [0, 1]) * 2 / BINS - 1
    return Axis(float(low), float(high), _LEFT, _WIDTH - _RIGHT)


def _panel(code: str, before: Separation, after: Separation, axis: Axis) -> Panel:
    parts = [
        tag(
            "text",
            tag("tspan", code, class_="title"),
            tag("tspan", f"  {before.share:.1%} to {after.share:.1%}", class_="muted"),
            x=_LEFT,
            y=16,
        )
    ]
    bottom = _TOP + 2 * _ROW + 12
    for tick in axis.ticks(4):
        parts.append(path([(axis.at(tick), _TOP), (axis.at(tick), bottom)], "grid"))
        parts.append(label(axis.at(tick), bottom + 14, f"{tick:.2g}", "small muted middle"))
    for row, (name, separation) in enumerate((("before", before), ("after", after))):
        base = _TOP + (row + 1) * _ROW + row * 12
        for class_, counts in ((_OTHER, separation.other), (_GOLD, separation.gold)):
            parts.append(_area(counts, axis, base, class_))
        parts.append(path([(_LEFT, base), (_WIDTH - _RIGHT, base)], "axis"))
        parts.append(label(_WIDTH - _RIGHT, base - _ROW + 14, name, "small muted end"))
    name = (
        f"{code}: a gold pair is more alike than another pair in {before.share:.1%} of all cases "
        f"before and {after.share:.1%} after"
    )
    return Panel(_WIDTH, _HEIGHT, name, joined(parts))


def _area(counts: Sequence[int], axis: Axis, base: float, class_: str) -> Markup:
    merged = np.array(counts, np.float64).reshape(-1, _MERGED).sum(1)
    if not merged.sum():
        return Markup("")
    heights = merged / merged.max() * (_ROW - 8)
    edges = np.linspace(-1, 1, len(merged) + 1)
    occupied = np.flatnonzero(heights)
    points = [(axis.at(float(edges[occupied[0]])), base)]
    for number in range(occupied[0], occupied[-1] + 1):
        y = base - float(heights[number])
        points += [(axis.at(float(edges[number])), y), (axis.at(float(edges[number + 1])), y)]
    points.append((axis.at(float(edges[occupied[-1] + 1])), base))
    kept = [(min(max(x, _LEFT), _WIDTH - _RIGHT), y) for x, y in points]
    dashed = " dashed" if class_ == _OTHER else ""
    return joined(
        [
            path(kept, f"area {class_}", closed=True),
            path(kept, f"curve {class_}{dashed}"),
        ]
    )


def _legend(pool: str) -> Panel:
    names = {_GOLD: f"question and its gold {pool}", _OTHER: f"question and another {pool}"}
    parts: list[Markup] = []
    x = 8.0
    for class_, name in names.items():
        dashed = " dashed" if class_ == _OTHER else ""
        parts.append(path([(x, 11), (x + 22, 11)], f"curve {class_}{dashed}"))
        parts.append(label(x + 28, 15, name))
        x += 46 + 6.2 * len(name)
    return Panel(520, 24, ", ".join(names.values()), joined(parts), "legend")
