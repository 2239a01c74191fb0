"""What a run ends with: its report, and the cards of its encoders."""

from __future__ import annotations

from pathlib import Path

from clrelkt.errors import DataError
from clrelkt.files import write_text
from clrelkt.reports.figures import write_figures
from clrelkt.reports.page import MAX_BYTES, render_report, run_figures
from clrelkt.reports.run_folder import read_finished_run

__all__ = ["REPORT_FILE", "finish_run", "write_report", "write_run_figures"]

REPORT_FILE = "report.html"


def finish_run(folder: Path) -> Path:
    """Write what a complete run ends with and return the path of its report.

    Raises:
        TrainingError: the folder holds no complete run, or a file of it cannot be read.
        DataError: the page would be larger than 2 MB.
        StorageError: a file could not be written.
    """
    return write_report(folder)


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
    html = render_report(read_finished_run(folder))
    size = len(html.encode())
    if size > MAX_BYTES:
        raise DataError(
            f"{folder}: the report would have {size:,} bytes, more than {MAX_BYTES:,}; the run's "
            "recipe or measurements are too large for one page"
        )
    path = folder / REPORT_FILE
    write_text(path, html)
    return path
