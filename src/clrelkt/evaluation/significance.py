"""Whether one encoder is better than another, or was only luckier with its questions.

The paired randomisation test over questions (Smucker, Allan and Carterette, CIKM 2007): if both
encoders were equally good, which of the two found a question's answer would be a coin's fall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from clrelkt.errors import DataError
from clrelkt.evaluation.resampling import per_question, percentiles, question_draws, resample
from clrelkt.evaluation.results import MetricName, Results

__all__ = ["Comparison", "Difference", "QuestionValues", "compare", "compare_values", "holm"]

QuestionValues = Mapping[str, Mapping[str, float]]
"""What each question adds to a mean: by language, then by parallel id."""

_LEVEL = 0.05
_DRAWS = 10_000
_BLOCK = 1_000
# Sums of the same numbers in another order differ by roundings, and a tie must stay a tie.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Difference:
    """Two values, ``difference`` (the first less the second) and its 95 % interval.

    The interval is a bootstrap over questions. ``p`` is the two-sided probability of a difference
    at least as large if both encoders were equally good. ``adjusted_p`` is corrected after Holm
    for the number of languages looked at; means have none.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    adjusted_p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether p is below .05: the corrected one, where there is one."""
        return (self.p if self.adjusted_p is None else self.adjusted_p) < _LEVEL

    def to_json(self) -> dict[str, float | bool | None]:
        """Return the numbers by name."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "adjusted_p": self.adjusted_p,
            "significant": self.significant,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two encoders on the same questions: by language, of the groups' means, and of the mean."""

    metric: str
    first: str
    second: str
    languages: Mapping[str, Difference]
    means: Mapping[str, Difference]
    mean: Difference

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "metric": self.metric,
            "first": self.first,
            "second": self.second,
            "languages": {code: row.to_json() for code, row in self.languages.items()},
            "means": {group: row.to_json() for group, row in self.means.items()},
            "mean": self.mean.to_json(),
        }


def compare(
    first: Results,
    second: Results,
    metric: MetricName = "hit_rate@1",
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare two encoders' results in one metric, language by language and in the means.

    The groups are those of ``first``.

    Raises:
        DataError: results of different kinds or questions, or read from JSON without ranks.
    """
    kinds = [(r.corpus, r.pool, r.document_score, r.split) for r in (first, second)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"results of different kinds cannot be compared: {kinds[0]} and {kinds[1]}; "
            "corpus, pool, document score and split must be the same"
        )
    return compare_values(
        _question_values(first, metric),
        _question_values(second, metric),
        first.groups,
        names=(first.encoder, second.encoder),
        metric=metric,
        draws=draws,
        seed=seed,
    )


def _question_values(results: Results, metric: MetricName) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for code, row in results.languages.items():
        if row.ranks is None:
            raise DataError(
                f"the results of {results.encoder!r} were stored without ranks, which a comparison "
                "needs; evaluate it again"
            )
        every = per_question(row.ranks, metric).astype(np.float64).tolist()
        values[code] = dict(zip(row.parallel_ids, every, strict=True))
    return values


def compare_values(
    first: QuestionValues,
    second: QuestionValues,
    groups: Mapping[str, Sequence[str]],
    *,
    names: tuple[str, str],
    metric: str,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare any two sets of values of the same questions, whose means are what is measured.

    A draw turns the signs of some questions' differences; translations of a question are turned
    together, and so they are drawn together for the intervals.
    p = (1 + draws with a mean difference at least as large in size) / (1 + draws).

    Args:
        first: the values of one encoder.
        second: those of another.
        groups: languages of which a mean is wanted.
        names: what the two are called.
        metric: what the values are called.
        draws: how many sign patterns are drawn.
        seed: of these draws.

    Raises:
        DataError: the two are not of the same questions, or there are none.
    """
    _check_alike(first, second)
    table = _Table(first, second)
    codes = list(table.languages)
    chosen = {"": codes, **groups}
    weights = np.array(
        [[(code in set(row)) / len(row) for code in codes] for row in chosen.values()]
    )
    tested = np.concatenate([table.parts, table.parts @ weights.T], axis=1)
    p_values = _randomisation(tested, draws, seed)
    by_code = dict(zip(codes, p_values[: len(codes)], strict=True))
    adjusted = dict(zip(codes, holm(list(by_code.values())), strict=True))
    means = {
        name: table.difference(row, p)
        for (name, row), p in zip(chosen.items(), p_values[len(codes) :], strict=True)
    }
    mean = means.pop("")
    return Comparison(
        metric=metric,
        first=names[0],
        second=names[1],
        languages=MappingProxyType(
            {code: table.difference([code], by_code[code], adjusted[code]) for code in codes}
        ),
        means=MappingProxyType(means),
        mean=mean,
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values corrected for their number (Holm, 1979), in the order given.

    The smallest is multiplied by their number, the next by one less and so on; none is smaller
    than one before it, and none exceeds 1.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(corrected, 1)
    return tuple(adjusted.tolist())


def _check_alike(first: QuestionValues, second: QuestionValues) -> None:
    if not first or not all(first.values()):
        raise DataError("no questions to compare two encoders on")
    if set(first) != set(second):
        raise DataError(
            f"results in different languages cannot be compared: {' '.join(sorted(first))} and "
            f"{' '.join(sorted(second))}"
        )
    for code, row in first.items():
        unlike = set(row) ^ set(second[code])
        if unlike:
            raise DataError(
                f"results on different questions cannot be compared: in {code!r} only one of them "
                f"has {min(unlike)!r} ({len(unlike)} such)"
            )


class _Table:
    """The differences of all questions, aligned by their parallel ids.

    ``parts`` (parallel ids, languages), float64: what each adds to its language's difference.
    """

    def __init__(self, first: QuestionValues, second: QuestionValues) -> None:
        self.languages = tuple(first)
        self._values = (first, second)
        ids = sorted({parallel_id for row in first.values() for parallel_id in row})
        number = {parallel_id: place for place, parallel_id in enumerate(ids)}
        self.parts = np.zeros((len(ids), len(first)))
        drawn = question_draws(len(ids))
        self._resampled: dict[str, np.ndarray] = {}
        for column, (code, row) in enumerate(first.items()):
            places = [number[parallel_id] for parallel_id in row]
            other = second[code]
            differences = np.array(
                [value - other[parallel_id] for parallel_id, value in row.items()]
            )
            self.parts[places, column] = differences / len(row)
            self._resampled[code] = resample(drawn[:, places], differences.astype(np.float32))

    def difference(
        self, codes: Sequence[str], p: float, adjusted_p: float | None = None
    ) -> Difference:
        """Put together what is known of the mean over ``codes``."""
        first, second = (
            float(np.mean([np.mean(list(values[code].values())) for code in codes]))
            for values in self._values
        )
        low, high = percentiles([self._resampled[code] for code in codes])
        return Difference(first, second, first - second, low, high, p, adjusted_p)


def _randomisation(parts: np.ndarray, draws: int, seed: int) -> list[float]:
    """Return p for the sum of each column of ``parts`` (parallel ids, columns)."""
    observed = np.abs(parts.sum(axis=0)) - _ROUNDING
    rng = np.random.default_rng(seed)
    as_large = np.zeros(parts.shape[1], dtype=np.int64)
    for start in range(0, draws, _BLOCK):
        shape = (min(_BLOCK, draws - start), len(parts))
        signs = 2.0 * rng.integers(0, 2, shape, dtype=np.int8) - 1
        as_large += np.count_nonzero(np.abs(signs @ parts) >= observed, axis=0)
    return ((1 + as_large) / (1 + draws)).tolist()  # type: ignore[no-any-return]
