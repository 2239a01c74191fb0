"""From the scores of starts and ends to answer spans; numpy alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from clrelkt.reader.windows import Window

__all__ = ["AnswerSpan", "WindowScores", "answer_spans", "best_null_score"]


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """An answer in a context: ``context[start:end]`` is ``text``.

    ``score`` is the sum of the logits of its start and its end. ``probability`` is its share of
    the softmax over the spans that were kept of this context and "no answer".
    """

    text: str
    start: int
    end: int
    score: float
    probability: float


@dataclass(frozen=True)
class WindowScores:
    """A window and the logits of its tokens as start and as end, each of shape (tokens,)."""

    window: Window
    starts: np.ndarray
    ends: np.ndarray

    @property
    def null(self) -> float:
        """The score of "no answer here": that of the first special token as a span."""
        place = self.window.null_place
        return float(self.starts[place] + self.ends[place])


def best_null_score(windows: Iterable[WindowScores]) -> float:
    """Return the score of "no answer" of a context: the lowest of its windows.

    One window that holds the answer is enough to say that there is one.
    """
    return min(scores.null for scores in windows)


def answer_spans(
    context: str, windows: Iterable[WindowScores], *, n_best: int, max_tokens: int
) -> list[AnswerSpan]:
    """Return the ``n_best`` best spans of a context, best first, each place once.

    A span lies within the context and has at most ``max_tokens`` tokens. What two windows share
    has the higher of its two scores. The result is exact: every span of every window is looked at.
    """
    windows = tuple(windows)
    found: dict[tuple[int, int], float] = {}
    for scores in windows:
        for start, end, score in _spans_of(context, scores, n_best, max_tokens):
            found[start, end] = max(score, found.get((start, end), -np.inf))
    best = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:n_best]
    if not best:
        return []
    logits = np.array([score for _, score in best] + [best_null_score(windows)])
    weights = np.exp(logits - logits.max())
    shares = weights / weights.sum()
    return [
        AnswerSpan(context[start:end], start, end, score, float(share))
        for ((start, end), score), share in zip(best, shares, strict=False)
    ]


def _spans_of(
    context: str, scores: WindowScores, n_best: int, max_tokens: int
) -> list[tuple[int, int, float]]:
    window = scores.window
    first, last = window.context_tokens
    count = last - first
    if count <= 0:
        return []
    width = min(max_tokens, count)
    # sums[i, j] is the span of j + 1 tokens from token i on; -inf where it leaves the context.
    ends = np.full(count + width - 1, -np.inf)
    ends[:count] = scores.ends[first:last]
    sums = scores.starts[first:last, None] + np.lib.stride_tricks.sliding_window_view(ends, width)
    flat = sums.ravel()
    # Twice as many: spans that differ only in white space fall together below.
    kept = min(2 * n_best, flat.size)
    order = np.argpartition(-flat, kept - 1)[:kept]
    found = []
    for place in order:
        if not np.isfinite(flat[place]):
            continue
        token, more = divmod(int(place), width)
        start = window.offsets[first + token][0]
        end = window.offsets[first + token + more][1]
        start, end = _trimmed(context, start, end)
        if start < end:
            found.append((start, end, float(flat[place])))
    return found


def _trimmed(context: str, start: int, end: int) -> tuple[int, int]:
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    return start, start + len(text.strip())
