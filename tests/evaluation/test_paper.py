from __future__ import annotations

import pytest

from clrelkt.evaluation import printed, printed_results


@pytest.mark.parametrize(
    ("corpus", "first", "mrr"),
    [("xorqa", 0.518, 0.612), ("mlqa", 0.585, 0.665), ("xquad", 0.826, 0.870)],
)
def test_the_printed_means_follow_from_the_printed_rows(
    corpus: str, first: float, mrr: float
) -> None:
    results = printed_results(corpus)
    assert results is not None
    assert results.means["supported"].hit_rate_at_1 == pytest.approx(first, abs=0.0006)
    assert results.means["supported"].mrr_at_10 == pytest.approx(mrr, abs=0.0006)
    assert set(results.languages) == set(printed(corpus))


def test_stars_mark_the_unsupported_languages() -> None:
    results = printed_results("xquad")
    assert results is not None
    assert set(results.groups["unsupported"]) == {"ro", "el", "hi", "vi"}
    assert printed("xquad")["th"].hit_rate_at_10 == 0.983


def test_rows_are_ordered_from_the_first_hit_to_the_tenth() -> None:
    for corpus in ("xorqa", "mlqa", "xquad"):
        for row in printed(corpus).values():
            assert row.hit_rate_at_1 < row.mrr_at_10 < row.hit_rate_at_10
            assert row.hit_rate_at_1 < row.hit_rate_at_5 < row.hit_rate_at_10


def test_other_corpora_have_no_printed_figures() -> None:
    assert printed("bundled") == {}
    assert printed_results("bundled") is None
