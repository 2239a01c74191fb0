"""What checks of exports found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from clrelkt.reports.tables import figure, group_label, plain_table
from clrelkt.sharing.check import ExportCheck

__all__ = ["check_table", "exports_table", "size_and_speed"]


def check_table(check: ExportCheck) -> Table:
    """Return one export: a row a language, then the means of hit rates."""
    table = plain_table(f"{check.form} beside the original, hit rate@1 on {check.corpus}")
    table.add_column("language", no_wrap=True)
    for name in ("questions", "cosine", "least", "original", "export", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    for code, row in check.languages.items():
        table.add_row(
            code,
            str(row.questions),
            _cosine(row.mean_cosine),
            _cosine(row.least_cosine),
            *_change(row.original_hit_rate, row.hit_rate),
        )
    table.add_section()
    for group, (original, export) in check.means.items():
        table.add_row(group_label(group), "", "", "", *_change(original, export))
    return table


def size_and_speed(check: ExportCheck) -> str:
    """Return in one line how large and how fast an export is."""
    faster = check.texts_per_second / check.original_texts_per_second
    return (
        f"{check.megabytes:,.1f} MB; {check.texts_per_second:,.0f} texts/s here, "
        f"{faster:.2f} times the original's {check.original_texts_per_second:,.0f}"
    )


def exports_table(checks: Sequence[ExportCheck], encoder: str) -> Table:
    """Return several exports of one encoder: a row a form."""
    first = checks[0]
    table = plain_table(
        f"Exports of {encoder}, hit rate@1 on {first.corpus} "
        f"(original {figure(first.means['all'][0])})"
    )
    table.add_column("form", no_wrap=True)
    for name in ("MB", "cosine", "hit rate", "change", "texts/s", "speed"):
        table.add_column(name, justify="right", no_wrap=True)
    for check in checks:
        _, export, change = _change(*check.means["all"])
        faster = check.texts_per_second / check.original_texts_per_second
        table.add_row(
            check.form,
            f"{check.megabytes:,.1f}",
            _cosine(check.least_cosine),
            export,
            change,
            f"{check.texts_per_second:,.0f}",
            f"{faster:.2f}",
        )
    table.caption = "cosine: the least of any text; speed: over the original's, in one process"
    table.caption_justify = "left"
    return table


def _cosine(value: float) -> str:
    return f"{min(value, 1.0):.5f}"


def _change(original: float, export: float) -> tuple[str, str, str]:
    difference = export - original
    sign = "-" if difference <= -0.0005 else "+" if difference >= 0.0005 else ""
    return figure(original), figure(export), f"{sign}{figure(abs(difference))}"
