"""Figures of a run, as SVG."""

from __future__ import annotations

from clrelkt.reports.figures.bias import bias_figure
from clrelkt.reports.figures.curves import curves_figure
from clrelkt.reports.figures.drawing import Figure, Panel, definitions, write_figures
from clrelkt.reports.figures.scores import scores_figure
from clrelkt.reports.figures.separation import separation_figure
from clrelkt.reports.figures.space import space_figure

__all__ = [
    "Figure",
    "Panel",
    "bias_figure",
    "curves_figure",
    "definitions",
    "scores_figure",
    "separation_figure",
    "space_figure",
    "write_figures",
]
