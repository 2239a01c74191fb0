"""``clrelkt report``: the page of a run, made again, and its figures as files."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["report"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write the figures to this folder too, each as SVG and PNG.",
)
@click.option("--open", "opened", is_flag=True, help="Open the page in the browser.")
def report(run: Path, figures: Path | None, opened: bool) -> None:
    """Make report.html of RUN, the folder of a complete run, and the cards of its encoders.

    Everything is taken from the run's files: no corpus and no encoder is needed. Of the folder of a
    reproduction the same is done for every seed.
    """
    from clrelkt.reports.finish import finish_run, write_run_figures
    from clrelkt.reports.run_folder import run_folders

    folders = run_folders(run)
    for folder in folders:
        page = finish_run(folder)
        click.echo(f"report: {page}")
        if figures is not None:
            target = figures / folder.name if len(folders) > 1 else figures
            for path in write_run_figures(folder, target):
                click.echo(f"figure: {path}")
        if opened:
            click.launch(str(page.resolve()))
