from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clrelkt.errors import DataError
from clrelkt.evaluation import LanguageResult, Results
from clrelkt.evaluation.results import groups_of
from clrelkt.evaluation.significance import compare, compare_values, holm


def results(ranks: Mapping[str, np.ndarray], name: str = "first") -> Results:
    languages = {
        code: LanguageResult.from_ranks(row, [f"q{n}" for n in range(len(row))])
        for code, row in ranks.items()
    }
    return Results.of(
        languages,
        groups_of(languages, frozenset({"de", "ru"}), "en"),
        encoder=name,
        weights="",
        corpus="toy",
        pool="document",
        document_score="whole",
        split="test",
    )


def drawn(seed: int, luck: float, questions: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        code: np.where(rng.random(questions) < luck, 1, rng.integers(2, 12, questions))
        for code in ("en", "de", "ru", "fi")
    }


@pytest.mark.parametrize("metric", ["hit_rate@1", "mrr@10"])
def test_p_is_that_of_scipy(metric: Any) -> None:
    first, second = drawn(1, 0.55), drawn(2, 0.4)
    compared = compare(results(first), results(second, "second"), metric)
    assert (compared.first, compared.second, compared.metric) == ("first", "second", metric)

    def value(ranks: np.ndarray) -> np.ndarray:
        found: np.ndarray = (ranks == 1) * 1.0 if metric == "hit_rate@1" else (ranks <= 10) / ranks
        return found

    def reference(differences: np.ndarray) -> float:
        return float(
            stats.permutation_test(
                (differences, np.zeros_like(differences)),
                lambda a, b, axis: np.mean(a - b, axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=10_000,
                rng=np.random.default_rng(5),
            ).pvalue
        )

    differences = {code: value(first[code]) - value(second[code]) for code in first}
    for code, row in compared.languages.items():
        assert row.first == pytest.approx(value(first[code]).mean())
        assert row.second == pytest.approx(value(second[code]).mean())
        assert row.difference == pytest.approx(differences[code].mean())
        # Two estimates of p from 10,000 draws each; three standard errors of their difference.
        assert row.p == pytest.approx(reference(differences[code]), abs=0.02)
    # Translations are turned together: the mean over languages is one number a question.
    together = np.mean(list(differences.values()), axis=0)
    assert compared.mean.p == pytest.approx(reference(together), abs=0.02)
    supported = (differences["de"] + differences["ru"]) / 2
    assert compared.means["supported"].p == pytest.approx(reference(supported), abs=0.02)
    assert compared.means["supported"].adjusted_p is None


def test_few_questions_have_the_p_of_all_sign_patterns() -> None:
    # Of the 2**5 sign patterns only the two that are all alike reach the difference of five hits.
    first = {"en": {str(n): 1.0 for n in range(5)}}
    second = {"en": {str(n): 0.0 for n in range(5)}}
    [row] = compare_values(
        first, second, {}, names=("a", "b"), metric="hits", draws=100_000
    ).languages.values()
    assert row.p == pytest.approx(2 / 32, abs=0.003)
    assert (row.difference, row.low, row.high) == (1, 1, 1)


def test_equal_encoders_do_not_differ() -> None:
    same = results(drawn(1, 0.5))
    compared = compare(same, same)
    for row in [*compared.languages.values(), *compared.means.values(), compared.mean]:
        assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)
        assert not row.significant


def test_a_clear_difference_is_significant_in_every_language() -> None:
    compared = compare(results(drawn(1, 0.9)), results(drawn(2, 0.3)))
    for row in compared.languages.values():
        assert row.low > 0
        assert row.low < row.difference < row.high
        assert row.adjusted_p is not None
        assert row.p <= row.adjusted_p < 0.05
        assert row.significant
    # 10,000 draws can say no less than this.
    assert compared.mean.p == pytest.approx(1 / 10_001)


def test_the_order_of_encoders_turns_only_the_sign() -> None:
    first, second = results(drawn(1, 0.6)), results(drawn(2, 0.5))
    forth, back = compare(first, second), compare(second, first)
    for code, row in forth.languages.items():
        other = back.languages[code]
        assert row.p == other.p
        assert row.difference == -other.difference
        assert (row.low, row.high) == pytest.approx((-other.high, -other.low), abs=0.002)


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    first, second = drawn(3, 0.6, 200), drawn(4, 0.5, 200)
    row = compare(results(first), results(second)).languages["de"]
    differences = (first["de"] == 1) * 1.0 - (second["de"] == 1)
    interval = stats.bootstrap(
        (differences,),
        np.mean,
        method="percentile",
        n_resamples=5_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high), abs=0.012)


def test_the_order_of_questions_changes_nothing() -> None:
    first, second = results(drawn(1, 0.6)), results(drawn(2, 0.5))
    row = second.languages["de"]
    assert row.ranks is not None
    turned = replace(row, ranks=row.ranks[::-1].copy(), parallel_ids=row.parallel_ids[::-1])
    other = replace(second, languages={**second.languages, "de": turned})
    assert compare(first, other) == compare(first, second)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.5, 0.6]) == (1, 1)
    assert holm([0.02]) == (0.02,)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_upwards_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1, p * len(p_values))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    bonferroni = min(1, min(p_values) * len(p_values))
    assert min(adjusted) == pytest.approx(bonferroni)


def test_what_cannot_be_compared_is_refused() -> None:
    first = results(drawn(1, 0.5))
    with pytest.raises(DataError, match="different kinds"):
        compare(first, replace(first, pool="passage"))
    with pytest.raises(DataError, match="different languages"):
        compare(first, results({"en": np.array([1, 2])}))
    fewer = {code: row[:-1] for code, row in drawn(1, 0.5).items()}
    with pytest.raises(DataError, match=r"different questions.*'q59' \(1 such\)"):
        compare(first, results(fewer))
    with pytest.raises(DataError, match="without ranks"):
        compare(Results.from_json(first.to_json()), first)
    with pytest.raises(DataError, match="no questions"):
        compare_values({}, {}, {}, names=("a", "b"), metric="hits")


def test_as_json() -> None:
    record = compare(results(drawn(1, 0.9)), results(drawn(2, 0.3))).to_json()
    assert set(record["languages"]) == {"en", "de", "ru", "fi"}
    assert set(record["means"]) == {"supported", "unsupported"}
    assert record["languages"]["de"]["significant"] is True
    assert record["mean"]["adjusted_p"] is None
