"""Loss and dev, a pair of panels a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from clrelkt.reports.figures.drawing import Axis, Figure, Panel, label, path
from clrelkt.reports.figures.stages import StageMark, stage_marks
from clrelkt.reports.markup import Markup, joined, tag

__all__ = ["curves_figure"]

_WIDTH, _HEIGHT = 400.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 34.0, 30.0, 176.0
_DEV = "dev_hit_rate@1"
_AROUND = 2

Record = Mapping[str, Any]
Point = tuple[float, float]


def curves_figure(stages: Sequence[str], log: Sequence[Record]) -> Figure:
    """Return the loss of training and the hit rate on dev over steps, from a run's log."""
    marks = stage_marks(stages)
    panels: list[Panel] = []
    for stage in stages:
        records = [record for record in log if record["stage"] == stage]
        if records:
            panels += [_loss(stage, records, marks[stage]), _dev(stage, records, marks[stage])]
    return Figure("training", "Loss and dev", tuple(panels), columns=2, narrowest=320, widest=560)


def _loss(stage: str, records: Sequence[Record], mark: StageMark) -> Panel:
    points = _loss_points(records)
    if not points:
        note = label(_LEFT, (_TOP + _BOTTOM) / 2, "no training step", "muted")
        return Panel(_WIDTH, _HEIGHT, f"{stage}: no loss", joined([_heading(stage, "loss"), note]))
    high = max(y for _, y in points)
    low = min(0.0, *(y for _, y in points))
    frame = _Frame(records[-1]["step"], low, high or 1.0)
    drawn = [
        _heading(stage, "loss in training"),
        frame.grid(lambda value: f"{value:.3g}"),
        path(frame.places(points), f"curve thin {mark.colour}"),
        path(frame.places(_running_median(points)), f"curve {mark.colour}"),
    ]
    first, last = points[0][1], points[-1][1]
    name = f"{stage}: the loss goes from {first:.3g} to {last:.3g}"
    return Panel(_WIDTH, _HEIGHT, name, joined(drawn))


def _loss_points(records: Sequence[Record]) -> list[Point]:
    """Return steps and losses; where single ones were not logged, each evaluation's mean."""
    points: list[Point] = []
    before = 0
    for record in records:
        losses = record["losses"] or ([] if record["loss"] is None else [record["loss"]])
        width = (record["step"] - before) / max(1, len(losses))
        points += [(before + (n + 1) * width, loss) for n, loss in enumerate(losses)]
        before = record["step"]
    return points


def _running_median(points: Sequence[Point]) -> list[Point]:
    """Smooth away single batches, such as the short one that ends an epoch."""
    ys = [y for _, y in points]
    return [
        (x, median(ys[max(0, n - _AROUND) : n + _AROUND + 1])) for n, (x, _) in enumerate(points)
    ]


def _dev(stage: str, records: Sequence[Record], mark: StageMark) -> Panel:
    codes = list(records[-1]["languages"])
    rates = [rate for record in records for rate in record["languages"].values()]
    rates += [record[_DEV] for record in records]
    frame = _Frame(records[-1]["step"], min(rates), max(rates))
    drawn = [_heading(stage, "hit rate@1 on dev"), frame.grid(lambda value: f"{value:.0%}")]
    ends: list[tuple[float, str, str]] = []
    for code in codes:
        points = [(r["step"], r["languages"][code]) for r in records if code in r["languages"]]
        places = frame.places(points)
        tip = tag("title", f"{code}: {points[0][1]:.1%} to {points[-1][1]:.1%}")
        drawn.append(tag("g", tip, path(places, "curve thin cm")))
        ends.append((places[-1][1], code, "small muted"))
    mean = frame.places([(record["step"], record[_DEV]) for record in records])
    drawn.append(path(mean, f"curve {mark.colour}"))
    drawn += [
        mark.at(*place)
        for place, record in zip(mean, records, strict=True)
        if record["kept"] and record is _last_kept(records)
    ]
    ends.append((mean[-1][1], "mean", "small bold"))
    drawn.append(_end_labels(ends))
    best = _last_kept(records)
    name = f"{stage}: dev starts at {records[0][_DEV]:.1%}"
    if best is not None:
        name += f", the encoder kept has {best[_DEV]:.1%} (step {best['step']})"
    return Panel(_WIDTH, _HEIGHT, name, joined(drawn))


def _last_kept(records: Sequence[Record]) -> Record | None:
    return next((record for record in reversed(records) if record["kept"]), None)


def _heading(stage: str, what: str) -> Markup:
    return tag(
        "text",
        tag("tspan", stage, class_="title"),
        tag("tspan", f"  {what}", class_="muted"),
        x=2,
        y=16,
    )


def _end_labels(ends: Sequence[tuple[float, str, str]]) -> Markup:
    """Write names at the curves' ends, moved apart where they would touch; some give way."""
    room = 10.0
    shown: list[tuple[float, str, str]] = []
    for y, name, class_ in sorted(ends, key=lambda end: (end[1] != "mean", end[0])):
        if all(abs(y - other) >= room for other, _, _ in shown):
            shown.append((y, name, class_))
    return joined(label(_WIDTH - _RIGHT + 5, y + 3.5, name, class_) for y, name, class_ in shown)


class _Frame:
    """The scales of a panel, and their lines."""

    def __init__(self, steps: float, low: float, high: float) -> None:
        margin = (high - low or 0.02) * 0.06
        self._x = Axis(0, max(1, steps), _LEFT, _WIDTH - _RIGHT)
        self._y = Axis(low - (margin if low else 0), high + margin, _BOTTOM, _TOP)

    def places(self, points: Sequence[Point]) -> list[Point]:
        return [(self._x.at(x), self._y.at(y)) for x, y in points]

    def grid(self, write: Any) -> Markup:
        parts: list[Markup] = []
        for tick in self._y.ticks(4):
            y = self._y.at(tick)
            parts.append(path([(_LEFT, y), (_WIDTH - _RIGHT, y)], "grid"))
            parts.append(label(_LEFT - 6, y + 4, write(tick), "small muted end"))
        for tick in self._x.ticks(4):
            x = self._x.at(tick)
            if tick == int(tick):
                parts.append(label(x, _BOTTOM + 16, f"{int(tick):,}", "small muted middle"))
        parts.append(path([(_LEFT, _BOTTOM), (_WIDTH - _RIGHT, _BOTTOM)], "axis"))
        parts.append(label(_WIDTH - _RIGHT, _BOTTOM + 30, "steps", "small muted end"))
        return joined(parts)
