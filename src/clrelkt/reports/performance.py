"""Rows that benchmarks wrote, as one record and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from clrelkt.errors import DataError
from clrelkt.reports.records import Performance, PerformanceRow, read_record

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["merge_rows", "performance_table"]


def merge_rows(files: Sequence[Path]) -> Performance:
    """Return the rows of all ``files``, in the order of their work.

    A row takes the place of an earlier one of the same work, against the same, on the same
    hardware. Of files in its command the names are kept: folders are those of some machine.

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
        for row in found.rows:
            own = replace(row, command=_without_folders(row.command))
            rows[row.work, row.against, row.hardware] = own
    return Performance(name="performance", rows=tuple(rows[key] for key in sorted(rows)))


def _without_folders(command: str) -> str:
    return " ".join(
        PurePosixPath(word).name if word.startswith("/") else word for word in command.split(" ")
    )


def performance_table(performance: Performance) -> Table:
    """Return one entry a row; ratios that reach their target are green."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=performance.name, title_justify="left")
    table.add_column("work, against what")
    for title in ("target", "ratio", "spread", "ours", "GiB"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in performance.rows:
        low, high = row.spread
        colour = "green" if row.ratio >= row.target else "red"
        memory = "-" if row.peak_memory is None else f"{row.peak_memory / 2**30:.1f}"
        table.add_row(
            f"{escape(row.work)}\n[dim]{escape(row.against)}[/]",
            f"{row.target:g}",
            f"[{colour}]{_short(row.ratio)}[/]",
            f"{_short(low)}-{_short(high)}",
            escape(f"{_rounded(row.ours)} {row.unit}"),
            memory,
        )
    return table


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def _rounded(value: float) -> str:
    """Return a rate or a time with what matters of it: 3,339 or 17.8 or 10.5 M."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
