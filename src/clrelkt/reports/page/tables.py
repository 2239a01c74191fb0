"""Tables of a page."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from clrelkt.evaluation.results import MetricName
from clrelkt.evaluation.seeds import Estimate, SeedSummary
from clrelkt.reports.language_names import language_name
from clrelkt.reports.markup import Markup, tag
from clrelkt.reports.tables import figure, group_label

__all__ = ["measured_table", "score_table"]

_ALL = "all"


def score_table(
    stages: Mapping[str, SeedSummary], metric: MetricName, *, apart: Collection[str] = ()
) -> Markup:
    """Return a row a stage and a column a language, with intervals.

    The best of each column is marked; rows in ``apart`` do not compete.
    """
    codes = list(dict.fromkeys(code for row in stages.values() for code in row.languages))
    groups = list(dict.fromkeys(group for row in stages.values() for group in row.means))
    cells = {stage: _cells(summary, codes, groups, metric) for stage, summary in stages.items()}
    best = [
        max(
            (e.mean for stage, row in cells.items() if stage not in apart and (e := row[n])),
            default=float("inf"),
        )
        for n in range(len(codes) + len(groups) + 1)
    ]
    compete = sum(stage not in apart for stage in stages) > 1
    head = [tag("th", tag("abbr", code, title=language_name(code)), scope="col") for code in codes]
    head += [tag("th", group_label(group), scope="col", class_="mean") for group in groups]
    head.append(tag("th", _ALL, scope="col", class_="mean"))
    rows = []
    for stage, row in cells.items():
        marked = compete and stage not in apart
        shown = [
            _cell(estimate, mean=n >= len(codes), best=marked and _is(estimate, best[n]))
            for n, estimate in enumerate(row)
        ]
        rows.append(tag("tr", tag("th", stage, scope="row"), *shown))
    table = tag(
        "table",
        tag("caption", metric),
        tag("thead", tag("tr", tag("td", ""), *head)),
        tag("tbody", *rows),
    )
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=metric)


def _cells(
    summary: SeedSummary, codes: list[str], groups: list[str], metric: MetricName
) -> list[Estimate | None]:
    rows = [summary.languages.get(code) for code in codes]
    rows += [summary.means.get(group) for group in groups]
    return [None if row is None else row[metric] for row in [*rows, summary.mean]]


def _is(estimate: Estimate | None, best: float) -> bool:
    return estimate is not None and estimate.mean == best


def _cell(estimate: Estimate | None, *, mean: bool, best: bool) -> Markup:
    class_ = " ".join(name for name, holds in (("mean", mean), ("best", best)) if holds) or None
    if estimate is None:
        return tag("td", "–", class_=class_)  # noqa: RUF001
    shown = [figure(estimate.mean)]
    if estimate.low is not None and estimate.high is not None:
        shown.append(tag("small", f"{figure(estimate.low)} to {figure(estimate.high)}"))
    return tag("td", *shown, class_=class_)


def measured_table(by_stage: Mapping[str, Mapping[str, float]]) -> Markup:
    """Return a row a name and a column a stage."""
    names = list(dict.fromkeys(name for row in by_stage.values() for name in row))
    head = [tag("th", stage, scope="col") for stage in by_stage]
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(tag("td", figure(row[name]) if name in row else "–") for row in by_stage.values()),  # noqa: RUF001
        )
        for name in names
    ]
    table = tag("table", tag("thead", tag("tr", tag("td", ""), *head)), tag("tbody", *rows))
    return tag("div", table, class_="scroll", tabindex="0", role="region")
