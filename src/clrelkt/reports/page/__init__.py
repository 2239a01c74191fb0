"""The page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

from clrelkt.reports.page.comparison import render_comparison
from clrelkt.reports.page.frame import MAX_BYTES, page
from clrelkt.reports.page.report import render_report, run_figures

__all__ = ["MAX_BYTES", "page", "render_comparison", "render_report", "run_figures"]
