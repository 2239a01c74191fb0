"""Tables of how well readers answer."""

from __future__ import annotations

from rich.table import Table

from clrelkt.reader.evaluation import ReaderResults, ReaderScores
from clrelkt.reports.tables import figure, plain_table

__all__ = ["reader_table"]


def reader_table(results: ReaderResults, what: str) -> Table:
    """Return a row a language, then the mean; ``what`` names reader and questions."""
    table = plain_table(f"{what}, {results.context} passages, {results.normalisation} rules")
    table.add_column("language", no_wrap=True)
    for name in ("questions", "exact match", "F1", "answered"):
        table.add_column(name, justify="right", no_wrap=True)
    for code, row in results.languages.items():
        table.add_row(code, *_cells(row))
    table.add_section()
    table.add_row("all", *_cells(results.mean))
    return table


def _cells(row: ReaderScores) -> list[str]:
    return [
        str(row.questions),
        figure(row.exact_match),
        figure(row.f1),
        figure(row.answered),
    ]
