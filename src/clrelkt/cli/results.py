"""``clrelkt results``: what was measured before, as tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from clrelkt.evaluation.seeds import SeedSummary
    from clrelkt.reports.records import Measured, Performance, ReproductionRecord, Targets

__all__ = ["results"]

_FOLDER = Path("results")
_WIDTH = 100


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATHS]...")
@click.option("--every-language", is_flag=True, help="Show further tests language by language.")
@click.option(
    "--targets",
    "spec",
    metavar="SPEC",
    type=click.Path(path_type=Path),
    help="Show the targets of this TOML file beside what the records in its folder say.",
)
@click.option(
    "--performance",
    is_flag=True,
    help="Merge rows of benchmarks: PATHS are what their --row wrote, later ones count.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write these targets, or these rows, to a JSON file; rows that are there stay.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def results(
    paths: tuple[Path, ...],
    every_language: bool,
    spec: Path | None,
    performance: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show records: reproductions, lists of targets, rows of benchmarks, other measurements.

    PATHS are files or folders; without any, the folder results.
    """
    from clrelkt.errors import DataError
    from clrelkt.reports.records import Measured, Performance, ReproductionRecord, find_records

    if spec is not None:
        if paths:
            raise click.UsageError("--targets takes its records from the SPEC's folder: no PATHS")
        _build_targets(spec, output, as_json)
        return
    if performance:
        _merge_performance(paths, output, as_json)
        return
    if output is not None:
        raise click.UsageError(
            "-o writes targets or rows: name a SPEC with --targets, or files with --performance"
        )
    if not paths and not _FOLDER.is_dir():
        raise DataError(
            f"no folder {str(_FOLDER)!r} here; name the records: clrelkt results FILE or FOLDER"
        )
    records = find_records(paths or (_FOLDER,))
    if as_json:
        rows = [record.to_json() for record in records]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for record in records:
        if isinstance(record, ReproductionRecord):
            _show_reproduction(record, every_language)
        elif isinstance(record, Performance):
            _show_performance(record)
        elif isinstance(record, Measured):
            _show_measured(record, every_language)
        else:
            _show_targets(record)


def _build_targets(spec: Path, output: Path | None, as_json: bool) -> None:
    from clrelkt.files import write_json
    from clrelkt.reports.targets import build_targets

    targets = build_targets(spec)
    rows = [row.to_json() for row in targets.rows]
    if output is not None:
        write_json(output, rows)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    _show_targets(targets)


def _merge_performance(files: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    from clrelkt.files import write_json
    from clrelkt.reports.performance import merge_rows

    if not files:
        raise click.UsageError("--performance needs PATHS: the files that benchmarks wrote")
    before = [output] if output is not None and output.exists() else []
    merged = merge_rows([*before, *files])
    rows = [row.to_json() for row in merged.rows]
    if output is not None:
        write_json(output, rows)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    _show_performance(merged)


def _show_performance(performance: Performance) -> None:
    from rich.console import Console

    from clrelkt.reports.performance import performance_table

    Console().print(performance_table(performance))


def _show_measured(record: Measured, every_language: bool) -> None:
    from rich.console import Console

    from clrelkt.reports.measured import measured_tables

    console = Console()
    versions = (f"{name} {version}" for name, version in record.versions.items() if version)

    def show(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    show(f"{record.name} ({record.kind})")
    click.echo(record.command)
    show(", ".join(filter(None, (record.commit[:10], record.hardware, *versions))) + "\n")
    for table in record.tables:
        width = min(console.width, _WIDTH)
        for part in measured_tables(table, width=width, every_language=every_language):
            console.print(part)
            console.print()


def _show_reproduction(record: ReproductionRecord, every_language: bool) -> None:
    from rich.console import Console

    from clrelkt.cli.show import show_stages
    from clrelkt.reports.overview import further_tables

    console = Console()
    _show_labels(record, console)
    show_stages(dict(record.stages) | _paper(record))
    for test, summary in record.tests.items():
        tables = further_tables(
            test,
            summary,
            list(record.stages),
            width=min(console.width, _WIDTH),
            every_language=every_language,
        )
        for table in tables:
            console.print(table)
            console.print()


def _show_labels(record: ReproductionRecord, console: Console) -> None:
    count = len(record.seeds)
    interval = "seeds (Student's t)" if count > 1 else "questions (bootstrap)"
    scored = "" if record.pool == "passage" else f", {record.document_score}"
    kind = f"{record.corpus}, pool of {record.pool}s{scored}, {count} seed{'s' * (count > 1)}"
    place = ", ".join(filter(None, (record.commit[:10], record.hardware, record.weights)))

    def show(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    show(record.name)
    show(f"{kind}; ± is half the 95 % interval over {interval}")
    # Not broken into lines, so that it can be copied.
    click.echo(record.command)
    show(f"{place}\n")


def _paper(record: ReproductionRecord) -> dict[str, SeedSummary]:
    """Return the printed figures, where they are of the same kind."""
    from clrelkt.evaluation import aggregate, printed_alike

    printed = printed_alike(record.corpus, record.pool, record.document_score)
    return {} if printed is None else {printed.encoder: aggregate([printed])}


def _show_targets(targets: Targets) -> None:
    from rich.console import Console

    from clrelkt.reports.overview import sources, targets_table

    Console().print(targets_table(targets))
    for number, source in enumerate(sources(targets), start=1):
        click.echo(f"[{number}] {source}")
    click.echo()
