from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from clrelkt.errors import DataError
from clrelkt.evaluation import LanguageResult, Results, aggregate
from clrelkt.evaluation.seeds import over_seeds, student_t


def results(
    ranks: Mapping[str, Sequence[int]], groups: Mapping[str, tuple[str, ...]] | None = None
) -> Results:
    languages = {
        code: LanguageResult.from_ranks(np.array(row), [f"p{n}" for n in range(len(row))])
        for code, row in ranks.items()
    }
    return Results.of(
        languages,
        groups or {},
        encoder="muse",
        weights="",
        corpus="toy",
        pool="document",
        document_score="whole",
        split="test",
    )


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (29, 2.04523)],
)
def test_students_t_is_the_tables(freedom: int, value: float) -> None:
    assert student_t(freedom) == pytest.approx(value, abs=1e-5)


def test_the_interval_over_seeds_is_students() -> None:
    estimate = over_seeds([0.70, 0.74, 0.72])
    # Standard deviation .02, error .02 / sqrt(3).
    half = 4.30265 * 0.02 / 3**0.5
    assert estimate.mean == pytest.approx(0.72)
    assert estimate.low == pytest.approx(0.72 - half, abs=1e-6)
    assert estimate.half_width == pytest.approx(half, abs=1e-6)
    assert estimate.seeds == 3


def test_several_seeds_are_put_together_by_language() -> None:
    groups = {"supported": ("de",)}
    runs = [results({"de": [1, 1, 2, 2], "fi": [1, 9, 9, 9]}, groups) for _ in range(2)]
    runs.append(results({"de": [1, 1, 1, 2], "fi": [9, 9, 9, 9]}, groups))
    summary = aggregate(runs)
    assert summary.seeds == 3
    assert summary.languages["de"]["hit_rate@1"] == over_seeds([0.5, 0.5, 0.75])
    assert summary.mean["hit_rate@1"] == over_seeds([0.375, 0.375, 0.375])
    assert summary.means["supported"]["hit_rate@1"] == over_seeds([0.5, 0.5, 0.75])


def test_one_seed_gets_an_interval_over_its_questions() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(400) < 0.7
    summary = aggregate([results({"de": np.where(hits, 1, 3).tolist()})])
    estimate = summary.languages["de"]["hit_rate@1"]
    error = 1.96 * (hits.mean() * (1 - hits.mean()) / 400) ** 0.5
    assert estimate.mean == pytest.approx(hits.mean())
    assert estimate.half_width == pytest.approx(error, rel=0.1)
    assert estimate.seeds == 1
    assert aggregate([results({"de": np.where(hits, 1, 3).tolist()})]) == summary
    mrr = summary.languages["de"]["mrr@10"]
    assert mrr.mean == pytest.approx(hits.mean() + (1 - hits.mean()) / 3)
    assert mrr.low < mrr.mean < mrr.high  # type: ignore[operator]


def test_translations_of_a_question_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    ranks = np.where(rng.random(300) < 0.5, 1, 2).tolist()
    opposite = [3 - rank for rank in ranks]
    alike = aggregate([results({"de": ranks, "ru": ranks}, {"supported": ("de", "ru")})])
    # The same questions right: no narrower than one language. The opposite ones: no doubt left.
    single = alike.languages["de"]["hit_rate@1"].half_width
    assert alike.mean["hit_rate@1"].half_width == pytest.approx(single, rel=1e-3)
    assert alike.means["supported"]["hit_rate@1"] == alike.mean["hit_rate@1"]
    mixed = aggregate([results({"de": ranks, "ru": opposite})])
    assert mixed.mean["hit_rate@1"].half_width == pytest.approx(0, abs=1e-6)


def test_questions_are_told_apart_by_id_not_by_place() -> None:
    ranks = np.where(np.random.default_rng(2).random(200) < 0.5, 1, 2)
    ids = [f"p{number}" for number in range(200)]
    run = results({"de": ranks.tolist(), "ru": ranks.tolist()})
    turned = LanguageResult.from_ranks((3 - ranks)[::-1], ids[::-1])
    summary = aggregate([replace(run, languages={**run.languages, "ru": turned})])
    # What one language misses the other finds, whatever questions are drawn.
    assert summary.mean["hit_rate@1"].half_width == pytest.approx(0, abs=1e-6)


def test_a_single_result_without_ranks_has_no_interval() -> None:
    read = Results.from_json(results({"de": [1, 2]}, {"supported": ("de",)}).to_json())
    summary = aggregate([read])
    assert summary.languages["de"]["hit_rate@1"].half_width is None
    assert summary.means["supported"]["mrr@10"].low is None
    assert summary.mean["mrr@10"].mean == 0.75


def test_results_of_different_kinds_are_refused() -> None:
    one = results({"de": [1, 2]})
    for other in (replace(one, split="dev"), results({"ru": [1, 2]}), replace(one, pool="passage")):
        with pytest.raises(DataError, match="different kinds"):
            aggregate([one, other])
    with pytest.raises(DataError, match="no results"):
        aggregate([])
