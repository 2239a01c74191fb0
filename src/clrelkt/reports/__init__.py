"""Tables of what was measured."""

from __future__ import annotations

from clrelkt.reports.answers import reader_table
from clrelkt.reports.measurements import mixed_pool_table, sentence_table
from clrelkt.reports.tables import comparison_table, results_table, stage_tables, stages_json

__all__ = [
    "comparison_table",
    "mixed_pool_table",
    "reader_table",
    "results_table",
    "sentence_table",
    "stage_tables",
    "stages_json",
]
