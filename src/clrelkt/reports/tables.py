"""Tables of results that fit a terminal of 80 columns, and the same as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from clrelkt.evaluation.results import METRICS, MetricName, Metrics, Results
from clrelkt.evaluation.seeds import Estimate, Estimates, SeedSummary

__all__ = ["results_table", "stage_tables", "stages_json"]

_GROUP_LABELS = {"supported": "supported", "unsupported": "not supported"}
_ALL = "all"
_MISSING = "–"  # noqa: RUF001


def results_table(results: Results) -> Table:
    """Return one evaluation: a row a language, then the means; a column a metric."""
    table = _table(_title(results))
    table.add_column("language", no_wrap=True)
    table.add_column("questions", justify="right", no_wrap=True)
    for metric in METRICS:
        table.add_column(metric, justify="right", no_wrap=True)
    for code, row in results.languages.items():
        table.add_row(code, str(row.questions), *_figures(row))
    table.add_section()
    for group, metrics in results.means.items():
        table.add_row(_GROUP_LABELS.get(group, group), "", *_figures(metrics))
    table.add_row(_ALL, "", *_figures(results.mean))
    return table


def stage_tables(
    stages: Mapping[str, SeedSummary], metric: MetricName = "hit_rate@1", *, width: int = 80
) -> list[Table]:
    """Return stages side by side in one metric, with intervals as ± half their width.

    A row a stage and a column a language where that fits into ``width`` characters; else a row a
    language and a column a stage; else one table after the other, each with some of the languages.
    """
    names = _shared_columns(stages)
    cells = {
        (stage, name): _estimate(_look_up(summary, name, metric))
        for stage, summary in stages.items()
        for name in names
    }

    def by_stage(chosen: Sequence[str]) -> Table:
        return _grid("", list(stages), chosen, lambda stage, name: cells[stage, name], metric)

    upright = by_stage(names)
    if _width(upright) <= width:
        return [upright]
    turned = _grid("language", names, list(stages), lambda name, stage: cells[stage, name], metric)
    if _width(turned) <= width:
        return [turned]
    return [by_stage(chosen) for chosen in _runs(names, lambda c: _width(by_stage(c)) <= width)]


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


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )


def _grid(
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[str, str], str],
    title: str,
) -> Table:
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


def _width(table: Table) -> int:
    console = Console(width=10_000)
    return console.measure(table).maximum


def _runs(names: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> list[list[str]]:
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
    return [*codes, *(_GROUP_LABELS.get(group, group) for group in groups), _ALL]


def _look_up(summary: SeedSummary, name: str, metric: MetricName) -> Estimate | None:
    labelled = {_GROUP_LABELS.get(group, group): row for group, row in summary.means.items()}
    rows: Mapping[str, Estimates] = {**summary.languages, **labelled, _ALL: summary.mean}
    return rows[name][metric] if name in rows else None


def _figures(metrics: Metrics) -> list[str]:
    return [_figure(metrics.value(metric)) for metric in METRICS]


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return _MISSING
    # What no seed changes (zero-shot, BM25) has no interval over seeds.
    if estimate.half_width is None or estimate.low == estimate.high:
        return _figure(estimate.mean)
    return f"{_figure(estimate.mean)}±{_figure(estimate.half_width)}"


def _figure(value: float) -> str:
    """Write .123; a whole 1 takes the same four characters."""
    rounded = f"{value:.3f}"
    return "1.00" if rounded == "1.000" else rounded.removeprefix("0")
