"""``clrelkt compare``: runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from clrelkt.reports.comparison import RunComparison

__all__ = ["compare"]

_WIDTH = 100


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN…"
)
@click.option(
    "--stage",
    metavar="NAME",
    help="Compare the encoders of this stage. [default: each language's own last one]",
)
@click.option(
    "--metric",
    type=click.Choice(["hit_rate@1", "hit_rate@5", "hit_rate@10", "mrr@10"]),
    default="hit_rate@1",
    show_default=True,
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page (HTML) to this file too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare(
    runs: tuple[Path, ...], stage: str | None, metric: Any, output: Path | None, as_json: bool
) -> None:
    """Put runs side by side, with tests of significance against the first.

    A RUN is the folder of a complete run, or of a reproduction: then intervals are over its seeds.
    Tests need the same test questions (the same corpus and split seed).
    """
    from clrelkt.reports.comparison import compare_runs

    comparison = compare_runs(runs, stage=stage, metric=metric)
    if output is not None:
        from clrelkt.files import write_text
        from clrelkt.reports.page import render_comparison

        write_text(output, render_comparison(comparison))
    if as_json:
        click.echo(json.dumps(comparison.to_json(), ensure_ascii=False, indent=1))
        return
    _show(comparison)
    if output is not None:
        click.echo(f"page: {output}")


def _show(comparison: RunComparison) -> None:
    from rich.console import Console

    from clrelkt.reports.tables import run_tables

    console = Console()
    for table in run_tables(comparison, width=min(console.width, _WIDTH)):
        console.print(table)
        console.print()
    first = comparison.runs[0].label
    if comparison.against_first:
        click.echo(f"* differs from {first} by more than chance (p < .05, Holm over languages)")
    for label, found in comparison.against_first.items():
        row = found.mean
        p = "p < .001" if row.p < 0.0005 else f"p = {row.p:.3f}"
        click.echo(
            f"{label} less {first}, all: {row.difference:+.3f} "
            f"({row.low:+.3f} to {row.high:+.3f}, {p})"
        )
    for note in comparison.notes:
        click.echo(f"note: {note}")
    if comparison.settings:
        click.echo("\nwhat differs in how they were made:")
    for key, values in comparison.settings.items():
        shown = " | ".join(value if len(value) <= 40 else f"{value[:39]}…" for value in values)
        click.echo(f"  {key}: {shown}")
