"""Questions drawn again and again, for intervals over questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clrelkt.evaluation.results import MetricName

__all__ = ["CONFIDENCE", "RESAMPLES", "per_question", "percentiles", "question_draws", "resample"]

CONFIDENCE = 0.95
RESAMPLES = 2_000


def per_question(ranks: np.ndarray, metric: MetricName) -> np.ndarray:
    """Return what each question adds to the mean, float32; both have shape (questions,)."""
    name, cutoff = metric.split("@")
    hit = ranks <= int(cutoff)
    return (hit / ranks if name == "mrr" else hit).astype(np.float32)


def question_draws(questions: int) -> np.ndarray:
    """Return how often each question is drawn, shape (resamples, questions), float32.

    The random numbers are the same at every call.
    """
    if questions == 0:
        return np.empty((RESAMPLES, 0), np.float32)
    share = np.full(questions, 1 / questions)
    drawn: np.ndarray = np.random.default_rng(0).multinomial(questions, share, RESAMPLES)
    return drawn.astype(np.float32)


def resample(drawn: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of ``values`` (questions,) for each row of ``drawn``, float32.

    A resample that has drawn none of these questions has no mean (nan).
    """
    total = drawn.sum(axis=1)
    means = np.full(len(total), np.nan, np.float32)
    np.divide(drawn @ values, total, out=means, where=total > 0)
    return means


def percentiles(rows: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the mean over ``rows``, each (resamples,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(np.mean(rows, axis=0), (tail, 1 - tail))
    return float(low), float(high)
