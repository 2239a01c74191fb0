"""Rows that benchmarks wrote, as one record and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clrelkt.errors import DataError
from clrelkt.reports.records import Performance, PerformanceRow, read_record

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["merge_rows", "performance_table"]


def merge_rows(files: Sequence[Path]) -> Performance:
    """Return the rows of all ``files``, in the order of their work.

    A row takes the place of an earlier one of the same work, against the same, on the same
    hardware.

    Raises:
        DataError: a file cannot be read, or holds something else.
    """
    rows: dict[tuple[str, str, str], PerformanceRow] = {}
    for file in files:
        found = read_record(file)
        if not isinstance(found, Performance):
            raise DataError(
                f"{file}: no rows of a benchmark; expected what --row of a script in bench writes"
            )
        rows |= {(row.work, row.against, row.hardware): row for row in found.rows}
    return Performance(name="performance", rows=tuple(rows[key] for key in sorted(rows)))


def performance_table(performance: Performance) -> Table:
    """Return one line a row; ratios that reach their target are green."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=performance.name, title_justify="left")
    for title in ("work", "against"):
        table.add_column(title, overflow="fold")
    for title in ("target", "ratio", "spread", "ours", "peak GiB"):
        table.add_column(title, justify="right")
    for row in performance.rows:
        low, high = row.spread
        colour = "green" if row.ratio >= row.target else "red"
        table.add_row(
            escape(row.work),
            escape(row.against),
            f"{row.target:g}",
            f"[{colour}]{row.ratio:.2f}[/]",
            f"{low:.2f} to {high:.2f}",
            escape(f"{row.ours:,.4g} {row.unit}"),
            "-" if row.peak_memory is None else f"{row.peak_memory / 2**30:.1f}",
        )
    return table
