"""Tables of mixed-language pools and of sentences."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from clrelkt.evaluation.mixed_pool import MixedPoolResult
from clrelkt.evaluation.seeds import Estimates, aggregate
from clrelkt.evaluation.sentence_level import SENTENCE_METRICS, SentenceLevelResult
from clrelkt.reports.tables import estimate_cell, figure, group_label, plain_table

__all__ = ["mixed_pool_table", "sentence_table"]

_BREAKS = {"marked": "sentences as marked", "icu": "sentences by ICU"}


def mixed_pool_table(result: MixedPoolResult) -> Table:
    """Return a row a question language, then the means.

    The columns are both mean average precisions, the shares of the first and of the first ten
    passages that are in the question's language, and the mean distance of rank between two
    versions of the gold passage. The caption says which share is to be expected.
    """
    weights = f" ({result.weights})" if result.weights else ""
    table = plain_table(
        f"{result.encoder}{weights} on {result.corpus}, {result.split} questions, "
        f"{result.candidates:,} passages in {len(result.pool_languages)} languages"
    )
    table.caption = (
        f"own@k: share of the first k in the question's language; "
        f"{figure(result.expected_own_language)} without preference"
    )
    table.caption_justify = "left"
    table.add_column("language", no_wrap=True)
    for name in ("questions", "X→Y mAP", "X→X mAP", "own@1", "own@10", "rank distance"):
        table.add_column(name, justify="right", no_wrap=True)
    for code, row in result.languages.items():
        table.add_row(code, str(row.questions), *_mixed(row.to_json()))
    table.add_section()
    for group, means in result.means.items():
        table.add_row(group_label(group), "", *_mixed(means))
    table.add_row("all", "", *_mixed(result.mean))
    return table


def _mixed(row: Mapping[str, float]) -> list[str]:
    names = ("x_to_y/map", "x_to_x/map", "own_language@1", "own_language@10")
    return [*(figure(row[name]) for name in names), f"{row['rank_distance']:,.1f}"]


def sentence_table(result: SentenceLevelResult) -> Table:
    """Return a row a question language, then the means; ± is half the interval over questions."""
    results = result.results
    weights = f" ({results.weights})" if results.weights else ""
    table = plain_table(
        f"{results.encoder}{weights} on {results.corpus}, {results.split} questions, "
        f"{_BREAKS[result.breaks]}, {result.sentences:.1f} a passage"
    )
    left_out = sum(result.left_out.values())
    if left_out:
        table.caption = f"left out: {left_out} questions whose answer has no known place"
        table.caption_justify = "left"
    table.add_column("language", no_wrap=True)
    for name in ("questions", *SENTENCE_METRICS):
        table.add_column(name, justify="right", no_wrap=True)
    summary = aggregate([results])
    for code, row in results.languages.items():
        table.add_row(code, str(row.questions), *_sentence(summary.languages[code]))
    table.add_section()
    for group, estimates in summary.means.items():
        table.add_row(group_label(group), "", *_sentence(estimates))
    table.add_row("all", "", *_sentence(summary.mean))
    return table


def _sentence(estimates: Estimates) -> list[str]:
    return [estimate_cell(estimates[metric]) for metric in SENTENCE_METRICS]
