"""The texts that a contrastive stage trains on beside the corpus's own questions and documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from clrelkt.corpora import Corpus
from clrelkt.corpora.answer_pairs import AnswerPairs, read_answer_pairs
from clrelkt.corpora.model import Passage
from clrelkt.corpora.pairs import SentencePairs, find_pairs, hold_out
from clrelkt.errors import DataError
from clrelkt.text import split_sentences
from clrelkt.text.lexicon import Lexicon, learn_lexicon, switch_words
from clrelkt.training.recipe import AnsweredQuestions, Contrastive, Method, ParallelPairs

__all__ = ["Supplies", "load_supplies"]

_SHORTEST_SENTENCE = 16
_HELD_OUT_KINDS = ("sentences",)
_LEXICON_KINDS = ("sentences", "dict")
_LEXICON_PAIRS = 200_000


@dataclass(frozen=True)
class Supplies:
    """Texts by what they are for.

    ``passages`` are those of the documents that training questions are about; ``translated`` maps
    a language to their translations, in that order; ``sentences`` holds sentences of the
    translations with the number of their passage. ``pairs`` and ``answered`` are in the order of
    the recipe.
    """

    passages: tuple[Passage, ...] = ()
    translated: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    sentences: tuple[tuple[str, int], ...] = ()
    pairs: tuple[tuple[SentencePairs, ...], ...] = ()
    answered: tuple[AnswerPairs, ...] = ()

    @property
    def question_texts(self) -> Iterable[str]:
        """The texts that are encoded as questions."""
        yield from (text for text, _ in self.sentences)
        yield from (text for pairs in self.answered for text in pairs.questions)

    @property
    def passage_texts(self) -> Iterable[str]:
        """The texts that are encoded as passages."""
        yield from (text for texts in self.translated.values() for text in texts)
        for group in self.pairs:
            for pairs in group:
                yield from pairs.english
                yield from pairs.other
        yield from (text for pairs in self.answered for text in pairs.passages)


def load_supplies(method: Method, corpus: Corpus, languages: Sequence[str]) -> Supplies:
    """Read what ``method`` needs for training on the questions of ``corpus`` in ``languages``.

    Raises:
        DataError: passages have no translation, or a file or folder is missing.
        CorpusError: a file has faults.
    """
    if not isinstance(method, Contrastive):
        return Supplies()
    passages = _asked_about(corpus, languages)
    translated = {}
    if method.translated or method.sentences:
        foreign = [code for code in languages if code != corpus.document_language]
        translated = {code: _translations(corpus, passages, code) for code in foreign}
    return Supplies(
        passages=passages,
        translated=MappingProxyType(translated),
        sentences=tuple(_sentences(translated)) if method.sentences else (),
        pairs=tuple(map(_read_pairs, method.pairs or ())),
        answered=tuple(_answered(method, languages)),
    )


def _asked_about(corpus: Corpus, languages: Sequence[str]) -> tuple[Passage, ...]:
    # Other documents of the pool hold the answers of dev or test questions: as negatives of all
    # that is trained on they would only be pushed away.
    asked = {question.document_id for question in corpus.in_languages(languages).questions}
    documents = (document for document in corpus.documents if document.id in asked)
    return tuple(passage for document in documents for passage in document.passages)


def _translations(corpus: Corpus, passages: Sequence[Passage], language: str) -> tuple[str, ...]:
    texts = corpus.passage_translations.get(language, {})
    missing = [passage.id for passage in passages if passage.id not in texts]
    if missing:
        raise DataError(
            f"corpus {corpus.name!r}: {len(missing)} passages have no translation into "
            f"{language!r}, the first is {missing[0]!r}. Set translated and sentences to 0, or "
            "train on languages that the passages are translated into"
        )
    return tuple(texts[passage.id] for passage in passages)


def _sentences(translated: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, int]]:
    for language, texts in translated.items():
        for number, text in enumerate(texts):
            for sentence in split_sentences(text, language):
                if len(sentence) >= _SHORTEST_SENTENCE:
                    yield sentence, number


def _answered(method: Contrastive, languages: Sequence[str]) -> Iterator[AnswerPairs]:
    lexicons: list[Lexicon] = []
    for given in method.answered or ():
        read = read_answer_pairs(given.source)
        if given.switched and not lexicons:
            lexicons = _lexicons(method.pairs or (), languages)
        yield _switched(read, lexicons, given) if given.switched else read


def _lexicons(wanted: Sequence[ParallelPairs], languages: Sequence[str]) -> list[Lexicon]:
    found = [
        learn_lexicon(pairs.english, pairs.other, pairs.language)
        for given in wanted
        for pairs in _read_pairs(replace(given, kinds=_LEXICON_KINDS, limit=_LEXICON_PAIRS))
        if pairs.language in languages
    ]
    if not found:
        raise DataError(
            "answered questions can be switched into languages of the stage that have pairs, and "
            "there is none. Set switched to 0, or add pairs"
        )
    return found


def _switched(
    pairs: AnswerPairs, lexicons: Sequence[Lexicon], given: AnsweredQuestions
) -> AnswerPairs:
    rng = np.random.default_rng(0)  # The supplies belong to the recipe, not to a seed.
    questions, passages = list(pairs.questions), list(pairs.passages)
    for question, passage in zip(pairs.questions, pairs.passages, strict=True):
        count = min(given.switched, len(lexicons))
        for number in rng.choice(len(lexicons), count, replace=False):
            mixed = switch_words(question, lexicons[number], given.switched_words, rng)
            if mixed != question:
                questions.append(mixed)
                passages.append(passage)
    return AnswerPairs(tuple(questions), tuple(passages))


def _read_pairs(wanted: ParallelPairs) -> tuple[SentencePairs, ...]:
    found = find_pairs([Path(wanted.source)], wanted.languages, wanted.kinds)
    return tuple(_taken(pairs, wanted) for pairs in found.values())


def _taken(pairs: SentencePairs, wanted: ParallelPairs) -> SentencePairs:
    asked = [
        number for number, kind in enumerate(pairs.kinds) if kind in _HELD_OUT_KINDS + wanted.kinds
    ]
    own = pairs.select(asked)
    rest = hold_out(own, wanted.held_out, kinds=_HELD_OUT_KINDS)[0] if wanted.held_out else own
    numbers = [number for number, kind in enumerate(rest.kinds) if kind in wanted.kinds]
    if not numbers:
        raise DataError(
            f"source {wanted.source!r}: no pairs of {wanted.languages} are left of the kinds "
            f"{' '.join(wanted.kinds)} once {wanted.held_out} are held out"
        )
    # Evenly spread, so that every file and source is drawn from.
    step = max(1.0, len(numbers) / wanted.limit)
    return rest.select(numbers[int(place * step)] for place in range(int(len(numbers) / step)))
