"""How much an encoder keeps to the language of a question."""

from __future__ import annotations

from clrelkt.evaluation.language_bias import NEAREST
from clrelkt.reports.figures.drawing import Axis, Figure, Panel, label, path
from clrelkt.reports.figures.scores import legend_panel
from clrelkt.reports.figures.stages import stage_marks
from clrelkt.reports.markup import Markup, joined, tag
from clrelkt.training.portrait import Portrait

__all__ = ["bias_figure"]

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 520.0, 60.0, 14.0, 20.0, 26.0


def bias_figure(portrait: Portrait) -> Figure | None:
    """Return a row a language, or None where there is one language alone."""
    codes = list(portrait.bias[portrait.encoders[0]])
    if not codes:
        return None
    marks = stage_marks(portrait.encoders)
    bottom = _TOP + _ROW * len(codes)
    axis = Axis(0, 1, _LEFT, _WIDTH - _RIGHT)
    parts: list[Markup] = []
    for tick in axis.ticks():
        parts.append(path([(axis.at(tick), _TOP), (axis.at(tick), bottom)], "grid"))
        parts.append(label(axis.at(tick), bottom + 15, f"{tick:.0%}", "small muted middle"))
    for number, code in enumerate(codes):
        y = _TOP + _ROW * (number + 0.5)
        rows = {name: portrait.bias[name][code] for name in portrait.encoders}
        expected = axis.at(rows[portrait.encoders[0]].expected)
        places = [axis.at(row.share) for row in rows.values()]
        parts.append(path([(expected, y - _ROW / 2 + 2), (expected, y + _ROW / 2 - 2)], "expected"))
        parts.append(path([(min(places), y), (max(places), y)], "interval cf"))
        parts.append(label(_LEFT - 8, y + 4, code, "end"))
        for name, row in rows.items():
            tip = tag(
                "title", f"{code}, {name}: {row.share:.1%}; without preference {row.expected:.1%}"
            )
            parts.append(tag("g", tip, marks[name].at(axis.at(row.share), y)))
    parts.append(path([(_LEFT, bottom), (_WIDTH - _RIGHT, bottom)], "axis"))
    first = axis.at(portrait.bias[portrait.encoders[0]][codes[0]].expected)
    parts.append(label(first, _TOP - 4, "without preference", "small muted"))
    name = (
        f"Share of the {NEAREST} nearest other questions that are in the question's own language, "
        "by language and encoder; upright lines: without preference"
    )
    panel = Panel(_WIDTH, bottom + 22, name, joined(parts))
    return Figure(
        "language-bias",
        "Language bias",
        (panel,),
        columns=1,
        widest=640,
        legend=legend_panel(marks, _WIDTH),
    )
