"""Tables of further tests and of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.reports.records import Target, Targets, TestSummary
from clrelkt.reports.tables import (
    estimate_cell,
    figure,
    grid,
    longest_runs,
    plain_table,
    table_width,
)

__all__ = ["further_tables", "of_one_language", "sources", "targets_table"]


def further_tables(
    test: str,
    summary: TestSummary,
    stages: Sequence[str],
    *,
    width: int = 80,
    every_language: bool = False,
) -> list[Table]:
    """Return one test: a row a name, a column a stage, in the order of ``stages``.

    Names of single languages (``map/de``) are shown with ``every_language`` alone. Where the
    stages do not fit into ``width`` characters there are several tables.
    """
    order = {stage: place for place, stage in enumerate(stages)}
    columns = sorted(summary, key=lambda stage: order.get(stage, len(order)))
    names = list(dict.fromkeys(name for row in summary.values() for name in row))
    shown = [name for name in names if every_language or not of_one_language(name)] or names

    def cell(name: str, stage: str) -> str:
        return estimate_cell(summary[stage].get(name))

    def part(chosen: Sequence[str]) -> Table:
        return grid("", shown, chosen, cell, test)

    groups = longest_runs(columns, lambda chosen: table_width(part(chosen)) <= width)
    return [part(chosen) for chosen in groups]


def of_one_language(name: str) -> bool:
    """Tell whether a measurement's name ends in a language, as in ``map/de``."""
    head, _, tail = name.rpartition("/")
    return bool(head) and tail in ISO_639_1


def targets_table(targets: Targets) -> Table:
    """Return targets beside what was measured; the last column is the number of the source."""
    numbers = {source: number for number, source in enumerate(sources(targets), start=1)}
    table = plain_table(targets.name)
    table.add_column("", overflow="fold", max_width=36)
    for name in ("target", "measured", "interval"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("from", justify="right", no_wrap=True)
    for row in targets.rows:
        target = row.target if isinstance(row.target, str) else figure(row.target)
        cells = (row.row, target, figure(row.measured), _interval(row))
        table.add_row(*cells, f"[{numbers[_source(row)]}]".replace("[", r"\["))
    return table


def sources(targets: Targets) -> Mapping[str, Sequence[Target]]:
    """Return the targets by where they were measured: command, commit and hardware as one text."""
    found: dict[str, list[Target]] = {}
    for row in targets.rows:
        found.setdefault(_source(row), []).append(row)
    return found


def _source(row: Target) -> str:
    place = ", ".join(filter(None, (row.commit[:10], row.hardware)))
    return f"{row.command} ({place})" if place else row.command


def _interval(row: Target) -> str:
    if row.interval is None:
        return ""
    if isinstance(row.interval, str):
        return row.interval
    low, high = row.interval
    return f"{figure(low)} to {figure(high)}"
