"""Tables of a page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from clrelkt.evaluation.results import MetricName
from clrelkt.evaluation.seeds import Estimate, SeedSummary
from clrelkt.reports.language_names import language_name
from clrelkt.reports.markup import Markup, joined, tag
from clrelkt.reports.overview import of_one_language
from clrelkt.reports.tables import figure, group_label

__all__ = ["measured_table", "score_table"]

_ALL = "all"
_NOTHING = "–"  # noqa: RUF001


def score_table(
    stages: Mapping[str, SeedSummary], metric: MetricName, *, apart: Collection[str] = ()
) -> Markup:
    """Return a row a language, then the means, and a column a stage, with intervals.

    The best of each row is marked, where there is one; stages in ``apart`` do not compete.
    """
    rows = _rows(stages, metric)
    compete = [stage for stage in stages if stage not in apart]
    body = []
    for name, row in rows.items():
        means = {estimate.mean for stage in compete if (estimate := row.get(stage)) is not None}
        best = max(means) if len(means) > 1 else None
        shown = [
            _cell(row.get(stage), best=stage in compete and _is(row.get(stage), best))
            for stage in stages
        ]
        group = name not in _languages(stages)
        head = name if group else tag("span", f"{language_name(name)} ", tag("small", name))
        body.append(
            tag("tr", tag("th", head, scope="row"), *shown, class_="mean" if group else None)
        )
    table = tag(
        "table",
        tag("caption", metric),
        tag("thead", tag("tr", tag("td", ""), *(tag("th", s, scope="col") for s in stages))),
        tag("tbody", *body),
    )
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=metric)


def _languages(stages: Mapping[str, SeedSummary]) -> list[str]:
    return list(dict.fromkeys(code for row in stages.values() for code in row.languages))


def _rows(stages: Mapping[str, SeedSummary], metric: MetricName) -> dict[str, dict[str, Estimate]]:
    rows: dict[str, dict[str, Estimate]] = {code: {} for code in _languages(stages)}
    for stage, summary in stages.items():
        for code, row in summary.languages.items():
            rows[code][stage] = row[metric]
    for stage, summary in stages.items():
        for group, row in summary.means.items():
            rows.setdefault(group_label(group), {})[stage] = row[metric]
    # Means over different languages do not compare.
    rows[_ALL] = {
        stage: summary.mean[metric]
        for stage, summary in stages.items()
        if len(summary.languages) == len(_languages(stages))
    }
    return rows


def _is(estimate: Estimate | None, best: float | None) -> bool:
    return estimate is not None and estimate.mean == best


def _cell(estimate: Estimate | None, *, best: bool) -> Markup:
    if estimate is None:
        return tag("td", _NOTHING)
    shown = [tag("b", "▲ ")] if best else []
    shown.append(tag("span", figure(estimate.mean), class_="value"))
    if estimate.low is not None and estimate.high is not None:
        shown.append(tag("small", f"{figure(estimate.low)} to {figure(estimate.high)}"))
    return tag("td", *shown, class_="best" if best else None)


def measured_table(by_stage: Mapping[str, Mapping[str, float]]) -> Markup:
    """Return a row a name and a column a stage; names of single languages are folded away."""
    names = list(dict.fromkeys(name for row in by_stage.values() for name in row))
    single = [name for name in names if of_one_language(name)]
    plain = [name for name in names if not of_one_language(name)]
    if not single or not plain:
        return _measured(by_stage, names)
    folded = tag("details", tag("summary", "language by language"), _measured(by_stage, single))
    return joined([_measured(by_stage, plain), folded])


def _measured(by_stage: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> Markup:
    head = [tag("th", stage, scope="col") for stage in by_stage]
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(
                tag("td", figure(row[name]) if name in row else _NOTHING)
                for row in by_stage.values()
            ),
        )
        for name in names
    ]
    table = tag("table", tag("thead", tag("tr", tag("td", ""), *head)), tag("tbody", *rows))
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="numbers")
