"""How often the gold comes first: a row a language, a mark a stage, lines for intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clrelkt.evaluation.results import MetricName
from clrelkt.evaluation.seeds import Estimate, SeedSummary
from clrelkt.reports.figures.drawing import Axis, Figure, Panel, label, path
from clrelkt.reports.figures.stages import StageMark, stage_marks
from clrelkt.reports.markup import Markup, joined, tag
from clrelkt.reports.tables import group_label

__all__ = ["legend_panel", "scores_figure"]

_WIDTH, _LEFT, _RIGHT, _TOP = 520.0, 92.0, 14.0, 10.0


def scores_figure(
    stages: Mapping[str, SeedSummary],
    paper: str | None = None,
    *,
    metric: MetricName = "hit_rate@1",
) -> Figure:
    """Return the figure; ``paper`` is how the printed figures are called among ``stages``."""
    marks = stage_marks(list(stages), paper)
    rows = _rows(stages, metric)
    height = max(26.0, 7.0 * len(stages) + 8)
    bottom = _TOP + height * len(rows)
    axis = Axis(0, 1, _LEFT, _WIDTH - _RIGHT)
    parts: list[Markup] = []
    for tick in axis.ticks():
        parts.append(path([(axis.at(tick), _TOP), (axis.at(tick), bottom)], "grid"))
        parts.append(label(axis.at(tick), bottom + 15, f"{tick:.0%}", "small muted middle"))
    for number, (name, estimates) in enumerate(rows.items()):
        top = _TOP + number * height
        parts.append(path([(_LEFT, top), (_WIDTH - _RIGHT, top)], "grid"))
        bold = " bold" if number >= len(rows) - _means(stages) else ""
        parts.append(label(_LEFT - 8, top + height / 2 + 4, name, f"end{bold}"))
        parts.append(_row(estimates, marks, axis, top, height))
    parts.append(path([(_LEFT, bottom), (_WIDTH - _RIGHT, bottom)], "axis"))
    panel = Panel(_WIDTH, bottom + 22, f"{metric} by language, with 95 % intervals", joined(parts))
    return Figure(
        "hit-rates",
        f"{metric} by language",
        (panel,),
        columns=1,
        widest=640,
        legend=legend_panel(marks, _WIDTH),
    )


def _means(stages: Mapping[str, SeedSummary]) -> int:
    return len(dict.fromkeys(group for row in stages.values() for group in row.means)) + 1


def _rows(stages: Mapping[str, SeedSummary], metric: MetricName) -> dict[str, dict[str, Estimate]]:
    rows: dict[str, dict[str, Estimate]] = {}
    for stage, summary in stages.items():
        for code, row in summary.languages.items():
            rows.setdefault(code, {})[stage] = row[metric]
    for stage, summary in stages.items():
        for group, row in summary.means.items():
            rows.setdefault(group_label(group), {})[stage] = row[metric]
    # Means over different languages do not compare.
    most = max(len(summary.languages) for summary in stages.values())
    rows["all"] = {
        stage: summary.mean[metric]
        for stage, summary in stages.items()
        if len(summary.languages) == most
    }
    return rows


def _row(
    estimates: Mapping[str, Estimate],
    marks: Mapping[str, StageMark],
    axis: Axis,
    top: float,
    height: float,
) -> Markup:
    parts = []
    lanes = list(marks)
    for stage, estimate in estimates.items():
        y = top + height * (lanes.index(stage) + 1) / (len(lanes) + 1)
        mark, tip = marks[stage], f"{stage}: {estimate.mean:.1%}"
        drawn = []
        if estimate.low is not None and estimate.high is not None:
            tip += f" ({estimate.low:.1%} to {estimate.high:.1%})"
            ends = [(axis.at(estimate.low), y), (axis.at(estimate.high), y)]
            drawn.append(path(ends, f"interval {mark.colour}"))
        parts.append(tag("g", tag("title", tip), *drawn, mark.at(axis.at(estimate.mean), y)))
    return joined(parts)


def legend_panel(marks: Mapping[str, StageMark], width: float) -> Panel:
    """Return the marks with their names, in as many lines as they need."""
    parts, x, y = [], 8.0, 12.0
    for name, mark in marks.items():
        needed = 32 + 6.3 * len(name)
        if x + needed > width and x > 8:
            x, y = 8.0, y + 20
        parts.append(tag("g", mark.at(x + 4, y), label(x + 14, y + 4, name)))
        x += needed
    names: Sequence[str] = list(marks)
    return Panel(width, y + 12, f"Marks: {', '.join(names)}", joined(parts), "legend")
