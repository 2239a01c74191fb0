"""Means and 95 % intervals, over seeds or over questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from clrelkt.errors import DataError
from clrelkt.evaluation.resampling import (
    CONFIDENCE,
    per_question,
    percentiles,
    question_draws,
    resample,
)
from clrelkt.evaluation.results import METRICS, LanguageResult, MetricName, Metrics, Results

__all__ = ["Estimate", "SeedSummary", "aggregate", "over_seeds", "student_t"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval; ``low`` and ``high`` are None where none can be computed.

    ``seeds`` is the number of runs behind it. With one run the interval is over its questions.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def to_json(self) -> dict[str, float | int | None]:
        """Return the four numbers by name."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "seeds": self.seeds}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: a number is missing, or is none.
        """
        low, high = (None if record[key] is None else float(record[key]) for key in ("low", "high"))
        return cls(float(record["mean"]), low, high, int(record["seeds"]))


Estimates = Mapping[MetricName, Estimate]


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """Several runs of the same kind, put together: estimates by language, and of the means."""

    encoder: str
    seeds: int
    languages: Mapping[str, Estimates]
    mean: Estimates
    means: Mapping[str, Estimates]

    def to_json(self) -> dict[str, Any]:
        """Return the estimates by language, of the mean, and of the groups' means."""

        def plain(estimates: Estimates) -> dict[str, Any]:
            return {metric: estimates[metric].to_json() for metric in METRICS}

        return {
            "encoder": self.encoder,
            "seeds": self.seeds,
            "languages": {code: plain(row) for code, row in self.languages.items()},
            "mean": plain(self.mean),
            "means": {group: plain(row) for group, row in self.means.items()},
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: a number is missing, or is none.
        """

        def read(estimates: Mapping[str, Any]) -> Estimates:
            return MappingProxyType(
                {metric: Estimate.from_json(estimates[metric]) for metric in METRICS}
            )

        return cls(
            encoder=str(record["encoder"]),
            seeds=int(record["seeds"]),
            languages=MappingProxyType(
                {code: read(row) for code, row in dict(record["languages"]).items()}
            ),
            mean=read(record["mean"]),
            means=MappingProxyType(
                {group: read(row) for group, row in dict(record["means"]).items()}
            ),
        )


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of one value a seed, with Student's interval for at least two seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    # Equal values have no spread; numpy's mean of them may differ from them by a rounding.
    if len(set(values)) == 1:
        return Estimate(values[0], values[0], values[0], len(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = student_t(len(values) - 1) * error
    return Estimate(mean, mean - half, mean + half, len(values))


def student_t(freedom: int) -> float:
    """Return the value that Student's t exceeds in size in 5 % of all cases."""
    low, high = 1.0, 20.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Return the probability that Student's t lies between -t and t (finite series)."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * step / (step + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def aggregate(results: Sequence[Results]) -> SeedSummary:
    """Put the results of several seeds together.

    With one result the interval is a bootstrap over its questions: translations of a question
    are drawn together, always with the same random numbers. A single result that was read from
    JSON has no ranks, and gets no interval.

    Raises:
        DataError: no results, or results of different corpora, settings or languages.
    """
    _check_alike(results)
    if len(results) == 1:
        return _Bootstrap(results[0]).summary()
    first = results[0]
    return SeedSummary(
        first.encoder,
        len(results),
        _by_key(first.languages, lambda code: [result.languages[code] for result in results]),
        _estimates([result.mean for result in results]),
        _by_key(first.means, lambda group: [result.means[group] for result in results]),
    )


def _by_key(
    keys: Mapping[str, object], rows: Callable[[str], Sequence[Metrics]]
) -> Mapping[str, Estimates]:
    return MappingProxyType({key: _estimates(rows(key)) for key in keys})


def _estimates(rows: Sequence[Metrics]) -> Estimates:
    return MappingProxyType(
        {metric: over_seeds([row.value(metric) for row in rows]) for metric in METRICS}
    )


def _check_alike(results: Sequence[Results]) -> None:
    if not results:
        raise DataError("no results to put together")
    kinds = {
        (r.corpus, r.pool, r.document_score, r.split, tuple(r.languages), tuple(r.means))
        for r in results
    }
    if len(kinds) > 1:
        one, other = sorted(kinds)[:2]
        raise DataError(
            f"results of different kinds cannot be put together: {one} and {other}; "
            "corpus, pool, document score, split and languages must be the same"
        )


class _Bootstrap:
    """One result, its questions drawn again and again."""

    def __init__(self, results: Results) -> None:
        self._results = results
        ids = sorted({i for result in results.languages.values() for i in result.parallel_ids})
        self._number = {parallel_id: number for number, parallel_id in enumerate(ids)}
        self._drawn = question_draws(len(ids))

    def summary(self) -> SeedSummary:
        languages = self._results.languages
        resampled = {
            code: {metric: self._resampled(result, metric) for metric in METRICS}
            for code, result in languages.items()
        }

        def estimates(metrics: Metrics, codes: Sequence[str]) -> Estimates:
            return MappingProxyType(
                {
                    metric: _from_resamples(
                        metrics.value(metric), [resampled[code][metric] for code in codes]
                    )
                    for metric in METRICS
                }
            )

        return SeedSummary(
            self._results.encoder,
            1,
            MappingProxyType({code: estimates(row, [code]) for code, row in languages.items()}),
            estimates(self._results.mean, list(languages)),
            MappingProxyType(
                {
                    group: estimates(row, self._results.groups.get(group, ()))
                    for group, row in self._results.means.items()
                }
            ),
        )

    def _resampled(self, result: LanguageResult, metric: MetricName) -> np.ndarray | None:
        """Return the metric for each resample, shape (resamples,)."""
        if result.ranks is None:
            return None
        columns = [self._number[parallel_id] for parallel_id in result.parallel_ids]
        # A language with few questions can be missing from a resample altogether.
        return resample(self._drawn[:, columns], per_question(result.ranks, metric))


def _from_resamples(mean: float, resampled: Sequence[np.ndarray | None]) -> Estimate:
    rows = [row for row in resampled if row is not None]
    if not rows or len(rows) < len(resampled):
        return Estimate(mean, None, None, 1)
    low, high = percentiles(rows)
    return Estimate(mean, low, high, 1)
