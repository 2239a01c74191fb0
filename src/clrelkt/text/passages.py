"""Texts cut into passages: whole sentences, as many as a budget of tokens allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from icu4py.breakers import WordBreaker

from clrelkt.errors import SettingsError
from clrelkt.text.sentences import Span, sentence_spans

__all__ = ["CountTokens", "check_budget", "split_passages"]

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""Texts to their numbers of tokens."""


def split_passages(
    text: str, language: str, count_tokens: CountTokens, budget: int, overlap: int = 0
) -> list[Span]:
    """Cut a text into passages of at most ``budget`` tokens, at the ends of sentences.

    Every character is in a passage, and passages follow each other in order. A sentence longer
    than the budget is cut between words, and a word longer than it between characters.

    Args:
        text: the text.
        language: its language, ISO 639-1.
        count_tokens: how long texts are; lengths of parts are added up.
        budget: tokens of a passage, at most.
        overlap: a passage begins with the last sentences of the one before, as many whole ones as
            have at most so many tokens in all.

    Returns:
        From which character to which each passage goes; none for an empty text.

    Raises:
        SettingsError: a budget below 1, or an overlap that is negative or not below it.
    """
    check_budget(budget, overlap)
    # No tokenizer has more tokens than bytes: short texts need not be counted.
    if len(text.encode("utf-8", "surrogatepass")) <= budget:
        return [Span(0, len(text))] if text else []
    sentences = sentence_spans(text, language)
    counts = count_tokens([text[span.start : span.stop] for span in sentences])
    pieces: list[tuple[Span, int]] = []
    for span, count in zip(sentences, counts, strict=True):
        if count <= budget:
            pieces.append((span, count))
        else:
            pieces += _packed(_words(text, span, language), text, count_tokens, budget)
    return list(_passages(pieces, budget, overlap))


def check_budget(budget: int, overlap: int) -> None:
    """Refuse a budget and an overlap that do not go together.

    Raises:
        SettingsError: a budget below 1, or an overlap that is negative or not below it.
    """
    if budget < 1 or not 0 <= overlap < budget:
        raise SettingsError(
            f"passages of {budget} tokens with an overlap of {overlap}: expected a budget of at "
            "least 1 and an overlap from 0 to below it"
        )


def _words(text: str, span: Span, language: str) -> list[Span]:
    """Return the words of a sentence; spaces belong to the word before them."""
    pieces = list(WordBreaker(text[span.start : span.stop], language))
    ends = list(accumulate((len(piece) for piece in pieces), initial=span.start))
    words: list[Span] = []
    for piece, start, stop in zip(pieces, ends, ends[1:], strict=False):
        if words and piece.isspace():
            words[-1] = Span(words[-1].start, stop)
        else:
            words.append(Span(start, stop))
    return words


def _packed(
    words: list[Span], text: str, count_tokens: CountTokens, budget: int
) -> Iterator[tuple[Span, int]]:
    """Join words that follow each other to pieces of at most ``budget`` tokens."""
    counts = count_tokens([text[word.start : word.stop] for word in words])
    start, total = words[0].start, 0
    for word, count in zip(words, counts, strict=True):
        if total and total + count > budget:
            yield Span(start, word.start), total
            start, total = word.start, 0
        if count > budget and word.stop - word.start > 1:
            middle = (word.start + word.stop) // 2
            halves = [Span(word.start, middle), Span(middle, word.stop)]
            yield from _packed(halves, text, count_tokens, budget)
            start = word.stop
        else:
            total += count
    if start < words[-1].stop:
        yield Span(start, words[-1].stop), total


def _passages(pieces: list[tuple[Span, int]], budget: int, overlap: int) -> Iterator[Span]:
    first, total = 0, 0
    for place, (span, count) in enumerate(pieces):
        if place > first and total + count > budget:
            yield Span(pieces[first][0].start, span.start)
            first, total = _overlapping(pieces, first, place, min(overlap, budget - count))
        total += count
    if pieces:
        yield Span(pieces[first][0].start, pieces[-1][0].stop)


def _overlapping(
    pieces: list[tuple[Span, int]], first: int, place: int, most: int
) -> tuple[int, int]:
    """Return the piece that the next passage begins with, and the tokens from there to ``place``.

    At most ``most`` tokens are repeated, and never the whole passage from ``first`` on.
    """
    total = 0
    while place - 1 > first and total + pieces[place - 1][1] <= most:
        place -= 1
        total += pieces[place][1]
    return place, total
