"""What every run ends with at the command line: its report and its encoders' cards."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["finish"]


def finish(folder: Path, *, quiet: bool = False) -> None:
    """Write the report of a complete run.

    A report that cannot be made is told of on standard error and is no fault of the run, whose
    results are written already.
    """
    from clrelkt.errors import ClrelktError
    from clrelkt.reports.finish import finish_run

    try:
        report = finish_run(folder)
    except ClrelktError as error:
        click.echo(f"no report: {error}. Try again with: clrelkt report {folder}", err=True)
        return
    if not quiet:
        click.echo(f"report: {report}")
