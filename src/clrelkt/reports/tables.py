"""Tables of results that fit a terminal of 80 columns, and the same as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from clrelkt.evaluation.results import METRICS, MetricName, Metrics, Results
from clrelkt.evaluation.seeds import Estimate, Estimates, SeedSummary
from clrelkt.evaluation.significance import Comparison, Difference

if TYPE_CHECKING:
    from clrelkt.reports.comparison import RunComparison

__all__ = [
    "comparison_table",
    "estimate_cell",
    "figure",
    "grid",
    "group_label",
    "longest_runs",
    "plain_table",
    "results_table",
    "run_tables",
    "stage_tables",
    "stages_json",
    "table_width",
]

_GROUP_LABELS = {"supported": "supported", "unsupported": "not supported"}
_ALL = "all"
_ROUNDING = 1e-9
_MISSING = "–"  # noqa: RUF001


def results_table(results: Results, intervals: SeedSummary | None = None) -> Table:
    """Return one evaluation: a row a language, then the means; a column a metric.

    ``intervals`` are shown as ± half their width.
    """
    table = plain_table(_title(results))
    table.add_column("language", no_wrap=True)
    table.add_column("questions", justify="right", no_wrap=True)
    for metric in METRICS:
        table.add_column(metric, justify="right", no_wrap=True)
    for code, row in results.languages.items():
        estimates = None if intervals is None else intervals.languages[code]
        table.add_row(code, str(row.questions), *_figures(row, estimates))
    table.add_section()
    for group, metrics in results.means.items():
        estimates = None if intervals is None else intervals.means[group]
        table.add_row(group_label(group), "", *_figures(metrics, estimates))
    estimates = None if intervals is None else intervals.mean
    table.add_row(_ALL, "", *_figures(results.mean, estimates))
    return table


def comparison_table(comparison: Comparison) -> Table:
    """Return two encoders side by side: a row a language, then the means.

    The columns are both values, the difference and its 95 % interval, p (corrected after Holm
    where it is a language's), and a star where that is below .05.
    """
    table = plain_table(f"{comparison.metric}: {comparison.first} less {comparison.second}")
    table.add_column("language", no_wrap=True)
    for name in ("first", "second", "difference", "95 % interval", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for code, row in comparison.languages.items():
        table.add_row(code, *_compared(row))
    table.add_section()
    for group, row in comparison.means.items():
        table.add_row(group_label(group), *_compared(row))
    table.add_row(_ALL, *_compared(comparison.mean))
    return table


def _compared(row: Difference) -> list[str]:
    p = row.p if row.adjusted_p is None else row.adjusted_p
    return [
        figure(row.first),
        figure(row.second),
        _signed(row.difference),
        f"{_signed(row.low)} to {_signed(row.high)}",
        "<.001" if p < 0.0005 else figure(p),
        "*" if row.significant else "",
    ]


def _signed(value: float) -> str:
    rounded = f"{value:+.3f}"
    return f"{rounded[0]}{figure(abs(value))}"


def stage_tables(
    stages: Mapping[str, SeedSummary], metric: MetricName = "hit_rate@1", *, width: int = 80
) -> list[Table]:
    """Return stages side by side in one metric, with intervals as ± half their width.

    A row a stage and a column a language where that fits into ``width`` characters; else a row a
    language and a column a stage; else one table after the other, each with some of the languages.
    """
    names = _shared_columns(stages)
    cells = {
        (stage, name): estimate_cell(_look_up(summary, name, metric))
        for stage, summary in stages.items()
        for name in names
    }

    def by_stage(chosen: Sequence[str]) -> Table:
        return grid("", list(stages), chosen, lambda stage, name: cells[stage, name], metric)

    upright = by_stage(names)
    if table_width(upright) <= width:
        return [upright]
    turned = grid("language", names, list(stages), lambda name, stage: cells[stage, name], metric)
    if table_width(turned) <= width:
        return [turned]
    return [
        by_stage(chosen)
        for chosen in longest_runs(names, lambda c: table_width(by_stage(c)) <= width)
    ]


def run_tables(comparison: RunComparison, *, width: int = 80) -> list[Table]:
    """Return runs side by side: a row a language and a column a run; * differs from the first."""
    summaries = comparison.summaries
    groups = dict.fromkeys(group for row in summaries.values() for group in row.means)
    keys = {group_label(group): group for group in groups}

    def cell(name: str, label: str) -> str:
        shown = estimate_cell(_look_up(summaries[label], name, comparison.metric))
        return shown + ("*" if comparison.significant(label, keys.get(name, name)) else " ")

    names = _shared_columns(summaries)

    def part(chosen: Sequence[str]) -> Table:
        return grid("", names, chosen, cell, comparison.metric)

    chosen_runs = longest_runs(list(summaries), lambda chosen: table_width(part(chosen)) <= width)
    return [part(chosen) for chosen in chosen_runs]


def stages_json(stages: Mapping[str, SeedSummary]) -> dict[str, Any]:
    """Return what ``stage_tables`` shows, in every metric, as a JSON object."""
    return {stage: summary.to_json() for stage, summary in stages.items()}


def _title(results: Results) -> str:
    scored = "" if results.pool == "passage" else f", {results.document_score}"
    weights = f" ({results.weights})" if results.weights else ""
    return (
        f"{results.encoder}{weights} on {results.corpus}, {results.split} questions, "
        f"pool of {results.pool}s{scored}"
    )


def group_label(group: str) -> str:
    """Return what a table calls a group of languages."""
    return _GROUP_LABELS.get(group, group)


def plain_table(title: str) -> Table:
    """Return a table without rows or columns, in the house's look."""
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )


def grid(
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[str, str], str],
    title: str,
) -> Table:
    """Return ``cell(row, column)`` of every row and column, close together."""
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    table.add_column(corner, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row, *(cell(row, column) for column in columns))
    return table


def table_width(table: Table) -> int:
    """Return how many characters a table takes where it has room."""
    console = Console(width=10_000)
    return console.measure(table).maximum


def longest_runs(names: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> list[list[str]]:
    """Cut ``names`` into the longest runs that fit; a run has at least one."""
    runs: list[list[str]] = [[]]
    for name in names:
        if runs[-1] and not fits([*runs[-1], name]):
            runs.append([])
        runs[-1].append(name)
    return runs


def _shared_columns(stages: Mapping[str, SeedSummary]) -> list[str]:
    """Return the languages of all stages in order, then their means."""
    codes = dict.fromkeys(code for summary in stages.values() for code in summary.languages)
    groups = dict.fromkeys(group for summary in stages.values() for group in summary.means)
    return [*codes, *(group_label(group) for group in groups), _ALL]


def _look_up(summary: SeedSummary, name: str, metric: MetricName) -> Estimate | None:
    labelled = {group_label(group): row for group, row in summary.means.items()}
    rows: Mapping[str, Estimates] = {**summary.languages, **labelled, _ALL: summary.mean}
    return rows[name][metric] if name in rows else None


def _figures(metrics: Metrics, estimates: Estimates | None = None) -> list[str]:
    if estimates is not None:
        return [estimate_cell(estimates[metric]) for metric in METRICS]
    return [figure(metrics.value(metric)) for metric in METRICS]


def estimate_cell(estimate: Estimate | None) -> str:
    """Write .123±.045, without ± where there is no interval; – for nothing."""  # noqa: RUF002
    if estimate is None:
        return _MISSING
    # What no seed changes (zero-shot, BM25) has no interval over seeds but for roundings.
    if estimate.half_width is None or estimate.half_width < _ROUNDING:
        return figure(estimate.mean)
    return f"{figure(estimate.mean)}±{figure(estimate.half_width)}"


def figure(value: float) -> str:
    """Write .123; a whole 1 takes the same four characters, and 10 or more has one decimal."""
    if abs(value) >= 10:
        return f"{value:,.1f}"
    rounded = f"{value:.3f}"
    return "1.00" if rounded == "1.000" else rounded.removeprefix("0")
