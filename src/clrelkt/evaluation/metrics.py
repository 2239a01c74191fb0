"""Hit rate and reciprocal rank, from scores."""

from __future__ import annotations

import numpy as np

__all__ = ["gold_ranks", "hit_rate", "reciprocal_rank"]


def gold_ranks(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return the rank of each question's gold, 1 for the best, shape (questions,).

    ``scores`` has shape (questions, candidates), ``gold`` (questions,) holds column numbers.
    Among equal scores the gold comes last, and a score that is not a number counts as equal: a
    tie is never a hit by luck.
    """
    gold_scores = np.take_along_axis(scores, gold[:, None], axis=1)
    ranks: np.ndarray = np.count_nonzero(~(scores < gold_scores), axis=1)
    return ranks


def hit_rate(ranks: np.ndarray, k: int) -> float:
    """Return the share of questions whose gold is among the first ``k`` (the paper's P@k)."""
    return float(np.mean(ranks <= k))


def reciprocal_rank(ranks: np.ndarray, cutoff: int = 10) -> float:
    """Return the mean of 1 / rank, where a rank beyond ``cutoff`` counts 0."""
    return float(np.mean(np.where(ranks <= cutoff, 1 / ranks, 0)))
