"""Documents cut into passages, sentences and words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from icu4py.breakers import WordBreaker

from clrelkt.encoders.protocol import Encoder, TokenizingEncoder
from clrelkt.search.documents import IndexDocument, detect_language
from clrelkt.search.keywords import WORDS
from clrelkt.search.segments import CutDocument, CutPassage
from clrelkt.search.settings import IndexSettings
from clrelkt.text.passages import CountTokens, split_passages
from clrelkt.text.sentences import Span, sentence_spans

__all__ = ["Cutter", "token_counter"]


def token_counter(encoder: Encoder) -> CountTokens:
    """Return what counts an encoder's tokens, without the marks around a text.

    An encoder that does not show its tokens is taken to have one a word.
    """
    if isinstance(encoder, TokenizingEncoder):
        marks = int(encoder.tokenize([""]).lengths[0])
        return lambda texts: (encoder.tokenize(texts).lengths - marks).clamp(min=1).tolist()
    return lambda texts: [
        max(1, sum(not word.isspace() for word in WordBreaker(text, "en"))) for text in texts
    ]


class Cutter:
    """Cuts documents as the settings of an index say."""

    def __init__(self, count_tokens: CountTokens, settings: IndexSettings) -> None:
        self._count_tokens = count_tokens
        self._settings = settings

    def __call__(self, documents: Sequence[IndexDocument]) -> list[CutDocument]:
        """Cut documents, those without a language after it has been detected."""
        languages = [
            detect_language(document.sample) if document.language is None else document.language
            for document in documents
        ]
        count = self._counted(documents, languages)
        return [
            self._cut(document, language, count)
            for document, language in zip(documents, languages, strict=True)
        ]

    def _counted(self, documents: Sequence[IndexDocument], languages: Sequence[str]) -> CountTokens:
        """Return a counter that knows the sentences of long documents, counted at one go."""
        sentences = [
            document.text[span.start : span.stop]
            for document, language in zip(documents, languages, strict=True)
            if document.passages is None and len(document.text) > self._settings.budget // 4
            for span in sentence_spans(document.text, language or "en")
        ]
        texts = list(dict.fromkeys(sentences))
        known = dict(zip(texts, self._count_tokens(texts), strict=True)) if texts else {}

        def count(asked: Sequence[str]) -> Sequence[int]:
            found = [known.get(text) for text in asked]
            counts = [number for number in found if number is not None]
            return counts if len(counts) == len(found) else self._count_tokens(asked)

        return count

    def _cut(
        self, document: IndexDocument, language: str, count_tokens: CountTokens
    ) -> CutDocument:
        locale = language or "en"
        passages = tuple(
            CutPassage(id_, text, _sentences(text, locale), self._words(text))
            for id_, text in self._parts(document, locale, count_tokens)
        )
        return CutDocument(document, language, passages)

    def _parts(
        self, document: IndexDocument, locale: str, count_tokens: CountTokens
    ) -> Iterator[tuple[str, str]]:
        """Yield ids and texts of passages."""
        if document.passages is not None:
            yield from ((id_, text) for id_, text in document.passages if text.strip())
            return
        budget, overlap = self._settings.budget, self._settings.overlap
        spans = split_passages(document.text, locale, count_tokens, budget, overlap)
        texts = (document.text[span.start : span.stop].strip() for span in spans)
        for number, text in enumerate(text for text in texts if text):
            yield f"{document.id}#{number}", text

    def _words(self, text: str) -> list[str] | None:
        return WORDS.words([text])[0] if self._settings.words else None


def _sentences(text: str, locale: str) -> tuple[Span, ...]:
    return tuple(sentence_spans(text, locale)) or (Span(0, len(text)),)
