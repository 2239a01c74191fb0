"""Runs side by side on a page."""

from __future__ import annotations

from collections.abc import Sequence

from clrelkt.evaluation import Comparison, Difference
from clrelkt.reports.comparison import RunComparison
from clrelkt.reports.figures import scores_figure
from clrelkt.reports.language_names import language_name
from clrelkt.reports.markup import Markup, joined, tag
from clrelkt.reports.page.frame import figure_panels, masthead, page, section
from clrelkt.reports.page.tables import score_table
from clrelkt.reports.tables import figure, group_label

__all__ = ["render_comparison"]


def render_comparison(comparison: RunComparison) -> str:
    """Return the page."""
    labels = [run.label for run in comparison.runs]
    parts = [_scores(comparison)]
    if comparison.against_first:
        parts.append(_tests(comparison))
    if comparison.settings:
        parts.append(_settings(comparison, labels))
    header = joined(
        [
            masthead("clrelkt: runs side by side", ", ".join(labels)),
            *(tag("p", note, class_="quiet") for note in comparison.notes),
        ]
    )
    footer = joined(["Made by ", tag("code", "clrelkt compare"), "."])
    return page(f"clrelkt: {', '.join(labels)}", header, parts, footer)


def _scores(comparison: RunComparison) -> Markup:
    first = comparison.runs[0]
    several = any(len(run.runs) > 1 for run in comparison.runs)
    over = "seeds, or over questions where there is one seed" if several else "questions"
    stages = dict.fromkeys(f"{run.label}: {run.stage}" for run in comparison.runs)
    text = (
        f"{comparison.metric} on {first.results[0].split} questions of {first.results[0].corpus}. "
        f"Small: 95 % intervals over {over}. Encoders: {'; '.join(stages)}. "
        "▲ marks the best of a language, by however little."
    )
    chart = tag("div", figure_panels(scores_figure(comparison.summaries, metric=comparison.metric)))
    table = score_table(comparison.summaries, comparison.metric)
    return section("results", "Results", tag("p", text), tag("div", table, chart, class_="side"))


def _tests(comparison: RunComparison) -> Markup:
    first = comparison.runs[0].label
    text = (
        f"Each run less {first}: the difference in points, its 95 % interval (bootstrap over "
        "questions), and the probability of one at least as large by chance (paired randomisation "
        "test; of single languages corrected after Holm). ★ marks p below .05."
    )
    tables = []
    for label, found in comparison.against_first.items():
        tables += [tag("h3", f"{label} less {first}"), _test_table(found)]
    return section("tests", "Differences", tag("p", text), *tables)


def _test_table(found: Comparison) -> Markup:
    rows = [(language_name(code), row, False) for code, row in found.languages.items()]
    rows += [(group_label(group), row, True) for group, row in found.means.items()]
    rows.append(("all", found.mean, True))
    head = ("", "run", "first", "difference", "95 % interval", "p", "")
    body = [_test_row(name, row, mean=mean) for name, row, mean in rows]
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", text, scope="col") for text in head))),
        tag("tbody", *body),
    )
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="differences")


def _test_row(name: str, row: Difference, *, mean: bool) -> Markup:
    p = row.p if row.adjusted_p is None else row.adjusted_p
    way = "up" if row.difference > 0 else "down" if row.difference < 0 else None
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", figure(row.first)),
        tag("td", figure(row.second)),
        tag("td", tag("span", f"{100 * row.difference:+.1f}", class_=way)),
        tag("td", f"{100 * row.low:+.1f} to {100 * row.high:+.1f}"),
        tag("td", "<.001" if p < 0.0005 else figure(p)),
        tag("td", "★" if row.significant else ""),
        class_="mean" if mean else None,
    )


def _settings(comparison: RunComparison, labels: Sequence[str]) -> Markup:
    head = tag("tr", tag("td", ""), *(tag("th", label, scope="col") for label in labels))
    rows = [
        tag("tr", tag("th", key, scope="row"), *(tag("td", value) for value in values))
        for key, values in comparison.settings.items()
    ]
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="wide")
    scroll = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="settings")
    return section("settings", "What differs in how they were made", scroll)
