"""Documents of one corpus that another has too, whole or in part.

An encoder that was trained on one corpus may have read the text that it is tested on in another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from clrelkt.corpora.model import Corpus, Document
from clrelkt.errors import SettingsError

__all__ = ["Overlap", "shared_documents"]

_WORD = re.compile(r"[^\W_]+")

_Place = tuple[int, int]
"""A text of the other corpus, and where in it a run of words ends."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a document shares with one of another corpus.

    Attributes:
        document_id: the document.
        title: its title.
        other_id: the other corpus's document.
        other_title: that one's title.
        same_title: whether the titles have the same words.
        words: length of the longest run of words that both have; 0 where none is long enough.
        text: that run, lower-cased and without punctuation.
        passage_ids: the document's passages that share a run.
    """

    document_id: str
    title: str
    other_id: str
    other_title: str
    same_title: bool
    words: int
    text: str
    passage_ids: tuple[str, ...]


def shared_documents(corpus: Corpus, other: Corpus, *, shingle: int = 8) -> tuple[Overlap, ...]:
    """Find the documents of ``corpus`` that share a title or a run of words with ``other``.

    Case, punctuation and accents do not count. A word is what stands between white space and
    punctuation, so that little is found in scripts that have no spaces.

    Args:
        corpus: whose documents are looked for.
        other: where they are looked for.
        shingle: the shortest run, in words, that counts as shared.

    Returns:
        One entry for each pair of documents, in the order of the documents.

    Raises:
        SettingsError: ``shingle`` is below 1.
    """
    if shingle < 1:
        raise SettingsError(f"shingle {shingle}: a run has at least 1 word")
    index = _Index(other, shingle)
    return tuple(overlap for document in corpus.documents for overlap in _overlaps(document, index))


def _words(text: str) -> list[str]:
    decomposed = unicodedata.normalize("NFKD", text)
    # A vowel sign of Devanagari is no \w: it would part a word in two.
    marks = {
        ord(character): None
        for character in set(decomposed)
        if unicodedata.category(character).startswith("M")
    }
    return _WORD.findall(decomposed.translate(marks).casefold())


class _Index:
    """Where every run of ``shingle`` words stands in a corpus, and its documents by title."""

    def __init__(self, corpus: Corpus, shingle: int) -> None:
        self.shingle = shingle
        self.documents = corpus.documents
        self.by_title: dict[tuple[str, ...], list[int]] = {}
        self._owner: list[int] = []
        self._ends: dict[tuple[str, ...], list[_Place]] = {}
        for number, document in enumerate(corpus.documents):
            self.by_title.setdefault(tuple(_words(document.title)), []).append(number)
            for passage in document.passages:
                words = _words(passage.text)
                for end, run in self._runs(words):
                    self._ends.setdefault(run, []).append((len(self._owner), end))
                self._owner.append(number)

    def _runs(self, words: list[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
        for end in range(self.shingle, len(words) + 1):
            yield end, tuple(words[end - self.shingle : end])

    def longest(self, text: str) -> dict[int, tuple[int, str]]:
        """Return, by number of a document, the longest run that it shares with ``text``."""
        words = _words(text)
        best: dict[int, tuple[int, str]] = {}
        running: dict[_Place, int] = {}
        for end, run in self._runs(words):
            # A run that goes on is one word longer than it was a word before.
            running = {
                (place, at): running.get((place, at - 1), self.shingle - 1) + 1
                for place, at in self._ends.get(run, ())
            }
            for (place, _), length in running.items():
                owner = self._owner[place]
                if length > best.get(owner, (0, ""))[0]:
                    best[owner] = (length, " ".join(words[end - length : end]))
        return best


def _overlaps(document: Document, index: _Index) -> Iterator[Overlap]:
    title = tuple(_words(document.title))
    namesakes = index.by_title.get(title, []) if title else []
    found: dict[int, list[tuple[int, str, str]]] = {number: [] for number in namesakes}
    for passage in document.passages:
        for number, (length, run) in index.longest(passage.text).items():
            found.setdefault(number, []).append((length, run, passage.id))
    for number, runs in sorted(found.items()):
        words, text, _ = max(runs, key=lambda run: run[0], default=(0, "", ""))
        yield Overlap(
            document_id=document.id,
            title=document.title,
            other_id=index.documents[number].id,
            other_title=index.documents[number].title,
            same_title=number in namesakes,
            words=words,
            text=text,
            passage_ids=tuple(passage_id for *_, passage_id in runs),
        )
