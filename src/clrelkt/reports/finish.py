"""What a run ends with: its report, and the cards of its encoders."""

from __future__ import annotations

from pathlib import Path

from clrelkt.errors import DataError
from clrelkt.files import storage_errors, write_text
from clrelkt.reports.card import GENERATED, model_card
from clrelkt.reports.figures import write_figures
from clrelkt.reports.page import MAX_BYTES, render_report, run_figures
from clrelkt.reports.run_folder import FinishedRun, read_finished_run

__all__ = ["CARD_FILE", "REPORT_FILE", "finish_run", "write_report", "write_run_figures"]

REPORT_FILE = "report.html"
CARD_FILE = "README.md"


def finish_run(folder: Path) -> Path:
    """Write what a complete run ends with and return the path of its report.

    Raises:
        TrainingError: the folder holds no complete run, or a file of it cannot be read.
        DataError: the page would be larger than 2 MB.
        StorageError: a file could not be written.
    """
    run = read_finished_run(folder)
    for stage in run.recipe.stages:
        _write_card(run, stage.name)
    return _write_page(run)


def _write_card(run: FinishedRun, stage: str) -> None:
    """Write ``README.md`` beside an encoder, unless someone has written another one there."""
    encoder = run.folder / "encoders" / stage
    path = encoder / CARD_FILE
    with storage_errors(path):
        if not encoder.is_dir() or (path.exists() and GENERATED not in path.read_text("utf-8")):
            return
    write_text(path, model_card(run, stage))


def write_run_figures(folder: Path, target: Path) -> list[Path]:
    """Write the figures of a complete run's report to ``target``, as SVG and PNG.

    Raises:
        TrainingError: the folder holds no complete run, or a file of it cannot be read.
        MissingExtraError: what makes PNG of SVG is not installed.
        StorageError: a file could not be written.
    """
    return write_figures(run_figures(read_finished_run(folder)), target)


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a complete run and return its path.

    It is made from the run's files alone: no corpus and no encoder is loaded.

    Raises:
        TrainingError: the folder holds no complete run, or a file of it cannot be read.
        DataError: the page would be larger than 2 MB.
        StorageError: it could not be written.
    """
    return _write_page(read_finished_run(folder))


def _write_page(run: FinishedRun) -> Path:
    html = render_report(run)
    size = len(html.encode())
    if size > MAX_BYTES:
        raise DataError(
            f"{run.folder}: the report would have {size:,} bytes, more than {MAX_BYTES:,}; its "
            "recipe or its measurements are too large for one page"
        )
    path = run.folder / REPORT_FILE
    write_text(path, html)
    return path
