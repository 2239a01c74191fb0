"""The contrastive stage: softmax losses over all passages, and what keeps them in place.

An example is a question with what is drawn for it: its columns are the question's number, a number
that seeds what the batch draws, and each term's own. A term says which texts it needs and turns
their vectors into a loss; a text that several terms need is encoded once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from clrelkt.corpora.pairs import SentencePairs
from clrelkt.encoders import TrainableEncoder
from clrelkt.encoders.ragged import to_device
from clrelkt.errors import DataError, TrainingError
from clrelkt.objectives import anchor_loss, paired_loss, ranking_loss, reverse_ranking_loss
from clrelkt.training.bank import TextBank
from clrelkt.training.recipe import AnsweredQuestions, Contrastive, ParallelPairs
from clrelkt.training.stage_method import Material

__all__ = ["ContrastiveMethod"]

_SEEDS = 2**31
_ABSENT = -1


class _Term(Protocol):
    """A weighted part of the loss."""

    weight: float
    columns: int

    def draw(self, rng: np.random.Generator, examples: int) -> np.ndarray:
        """Return what is drawn for an epoch's examples, shape (examples, columns), int64."""

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        """Return the bank's rows that the loss needs, as runs of rows."""

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        """Return the loss, given the vectors of each run of ``texts``."""


@dataclass(frozen=True)
class _Batch:
    """Numbers of the batch's questions, this term's drawn columns, and a seed for more."""

    questions: np.ndarray
    drawn: np.ndarray
    seed: int
    device: torch.device

    def numbers(self, values: np.ndarray) -> torch.Tensor:
        return to_device(torch.from_numpy(np.ascontiguousarray(values)), self.device)


class ContrastiveMethod:
    """Examples and loss of a contrastive stage (StageMethod)."""

    encoded_columns = 0

    def __init__(self, settings: Contrastive, material: Material) -> None:
        self._material = material
        self._device = material.bank.device
        self._terms = _terms(settings, material)
        places = np.cumsum([2, *(term.columns for term in self._terms)])
        self._slices = [slice(a, b) for a, b in itertools.pairwise(places)]

    @property
    def notes(self) -> dict[str, int]:
        """No question is left out."""
        return {}

    def examples(self, epoch: int, encoder: TrainableEncoder) -> np.ndarray:
        """Return each question once, with what is drawn for it, shape (questions, columns)."""
        rng = np.random.default_rng((self._material.seed, self._material.stage, epoch, 1))
        count = len(self._material.questions)
        columns = [np.arange(count)[:, None], rng.integers(0, _SEEDS, (count, 1))]
        columns += [term.draw(rng, count) for term in self._terms]
        return np.concatenate(columns, axis=1)

    def texts(self, examples: np.ndarray) -> np.ndarray:
        """Return the rows that the batch needs, one term's after the other, shape (rows,)."""
        return np.concatenate([run for runs in self._runs(examples) for run in runs])

    def loss(self, vectors: torch.Tensor, examples: np.ndarray) -> torch.Tensor:
        """Return the weighted sum of the terms; ``vectors`` has shape (rows, dimension)."""
        runs = self._runs(examples)
        lengths = [len(run) for term in runs for run in term]
        parts = iter(torch.split(vectors, lengths))
        total = vectors.new_zeros(())
        for term, batch, own in zip(self._terms, self._batches(examples), runs, strict=True):
            own_vectors = [next(parts) for _ in own]
            if all(len(run) for run in own):
                total = total + term.weight * term.loss(batch, *own_vectors)
        return total

    def _batches(self, examples: np.ndarray) -> list[_Batch]:
        seed = int(examples[0, 1])
        return [
            _Batch(examples[:, 0], examples[:, columns], seed, self._device)
            for columns in self._slices
        ]

    def _runs(self, examples: np.ndarray) -> list[Sequence[np.ndarray]]:
        batches = self._batches(examples)
        return [term.texts(batch) for term, batch in zip(self._terms, batches, strict=True)]


def _terms(settings: Contrastive, material: Material) -> list[_Term]:
    texts = _CorpusTexts.of(material)
    terms: list[_Term] = []
    if settings.questions:
        excluded = _false_negatives(settings, material, texts)
        terms.append(_QuestionTerm(settings.questions, settings, texts, excluded))
    if settings.whole_documents:
        terms.append(_WholeTerm(settings.whole_documents, settings, texts))
    if settings.translated:
        terms.append(_TranslatedTerm(settings.translated, settings, texts))
    if settings.sentences:
        terms.append(_SentenceTerm(settings.sentences, settings, material, texts))
    if settings.english:
        terms.append(_EnglishTerm(settings.english, settings, material))
    if settings.anchor:
        rows = [texts.passages, *([texts.documents] if settings.whole_documents else [])]
        terms.append(_AnchorTerm(settings.anchor, np.concatenate(rows), material))
    for wanted, pairs in zip(settings.pairs or (), material.supplies.pairs, strict=True):
        terms.append(_PairTerm(wanted, settings, pairs, material.bank))
    for given, answers in zip(settings.answered or (), material.supplies.answered, strict=True):
        rows = [
            material.bank.rows(answers.questions, "question"),
            material.bank.rows(answers.passages, "passage"),
        ]
        terms.append(_AnsweredTerm(given, settings.temperature, rows[0], rows[1], texts.passages))
    return terms


@dataclass(frozen=True)
class _CorpusTexts:
    """The corpus's texts as rows of the bank.

    ``questions`` (questions,) and their ``gold`` (questions,), a number of ``passages``;
    ``document_of`` (passages,) numbers ``documents``; ``translated`` (languages, passages).
    """

    questions: np.ndarray
    gold: np.ndarray
    passages: np.ndarray
    document_of: np.ndarray
    documents: np.ndarray
    translated: np.ndarray

    @classmethod
    def of(cls, material: Material) -> _CorpusTexts:
        bank, corpus, supplies = material.bank, material.corpus, material.supplies
        number = {passage.id: place for place, passage in enumerate(supplies.passages)}
        documents = list(dict.fromkeys(passage.document_id for passage in supplies.passages))
        place = {document: at for at, document in enumerate(documents)}
        gold = []
        for question in material.questions:
            if question.passage_id not in number:
                raise DataError(
                    f"question {question.id!r} of corpus {corpus.name!r}: its gold passage "
                    f"{question.passage_id!r} is not in the corpus"
                )
            gold.append(number[question.passage_id])
        wholes = [corpus.document_by_id[document].text for document in documents]
        translated = [bank.rows(texts, "passage") for texts in supplies.translated.values()]
        return cls(
            questions=bank.rows((question.text for question in material.questions), "question"),
            gold=np.array(gold, dtype=np.int64),
            passages=bank.rows((passage.text for passage in supplies.passages), "passage"),
            document_of=np.array([place[p.document_id] for p in supplies.passages], np.int64),
            documents=bank.rows(wholes, "passage"),
            translated=np.stack(translated) if translated else np.empty((0, 0), np.int64),
        )


def _false_negatives(
    settings: Contrastive, material: Material, texts: _CorpusTexts
) -> torch.Tensor | None:
    """Return which passages are left out for which question, shape (questions, passages)."""
    if settings.false_negatives is None:
        return None
    vectors = material.bank.vectors
    scores = vectors(material.start, texts.questions) @ vectors(material.start, texts.passages).T
    gold = torch.from_numpy(texts.gold).to(scores.device)[:, None]
    excluded = scores > settings.false_negatives * scores.gather(1, gold)
    return excluded.scatter(1, gold, value=False)


class _NothingDrawn:
    columns = 0

    def draw(self, rng: np.random.Generator, examples: int) -> np.ndarray:
        return np.empty((examples, 0), np.int64)


class _QuestionTerm(_NothingDrawn):
    """A question finds its passage among all."""

    def __init__(
        self,
        weight: float,
        settings: Contrastive,
        texts: _CorpusTexts,
        excluded: torch.Tensor | None,
    ) -> None:
        self.weight = weight
        self._settings = settings
        self._texts = texts
        self._excluded = excluded

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        return self._texts.questions[batch.questions], self._texts.passages

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        questions, passages = vectors
        excluded = None
        if self._excluded is not None:
            excluded = self._excluded[batch.numbers(batch.questions)]
        gold = self._texts.gold[batch.questions]
        forward = _rank(self._settings, self._texts, batch, questions, passages, gold, excluded)
        if self._settings.directions == "forward":
            return forward
        backward = reverse_ranking_loss(
            questions, passages, batch.numbers(gold), temperature=self._settings.temperature
        )
        return (forward + backward) / 2


def _rank(
    settings: Contrastive,
    texts: _CorpusTexts,
    batch: _Batch,
    questions: torch.Tensor,
    passages: torch.Tensor,
    gold: np.ndarray,
    excluded: torch.Tensor | None = None,
) -> torch.Tensor:
    by_document = settings.score == "best-passage"
    return ranking_loss(
        questions,
        passages,
        batch.numbers(texts.document_of[gold] if by_document else gold),
        temperature=settings.temperature,
        document_of=batch.numbers(texts.document_of) if by_document else None,
        excluded=excluded,
    )


class _WholeTerm(_NothingDrawn):
    """A question finds its document, encoded as one text."""

    def __init__(self, weight: float, settings: Contrastive, texts: _CorpusTexts) -> None:
        self.weight = weight
        self._settings = settings
        self._texts = texts

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        return self._texts.questions[batch.questions], self._texts.documents

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        gold = self._texts.document_of[self._texts.gold[batch.questions]]
        questions, documents = vectors
        return ranking_loss(
            questions, documents, batch.numbers(gold), temperature=self._settings.temperature
        )


class _TranslatedTerm(_NothingDrawn):
    """A question finds its passage among passages in languages drawn anew for each batch."""

    def __init__(self, weight: float, settings: Contrastive, texts: _CorpusTexts) -> None:
        if not len(texts.translated):
            raise TrainingError("translated passages need a language beside the documents' own")
        self.weight = weight
        self._settings = settings
        self._texts = texts

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        languages, passages = self._texts.translated.shape
        rng = np.random.default_rng(batch.seed)
        drawn = rng.integers(0, languages, passages)
        mixed = self._texts.translated[drawn, np.arange(passages)]
        return self._texts.questions[batch.questions], mixed, self._texts.passages

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        questions, mixed, passages = vectors
        gold = self._texts.gold[batch.questions]
        found = _rank(self._settings, self._texts, batch, questions, mixed, gold)
        rows = batch.numbers(self._texts.passages)
        same = rows[:, None] == rows[None, :]
        tied = paired_loss(mixed, passages, temperature=self._settings.temperature, same=same)
        return found + tied / 2


class _SentenceTerm:
    """A sentence of a translated passage finds the passage."""

    def __init__(
        self, weight: float, settings: Contrastive, material: Material, texts: _CorpusTexts
    ) -> None:
        sentences = material.supplies.sentences
        if not sentences:
            raise TrainingError("sentences need passages in a language beside the documents' own")
        self.weight = weight
        self.columns = _columns(settings.sentence_share)
        self._settings = settings
        self._texts = texts
        self._sentences = material.bank.rows((text for text, _ in sentences), "question")
        self._gold = np.array([number for _, number in sentences], np.int64)

    def draw(self, rng: np.random.Generator, examples: int) -> np.ndarray:
        share = self._settings.sentence_share
        return _draw(rng, examples, share, lambda count: rng.integers(0, len(self._gold), count))

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        found = (self._sentences[_present(batch)], self._texts.passages)
        return (*found, self._texts.documents) if self._settings.whole_documents else found

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        sentences, passages, *documents = vectors
        gold = self._gold[_present(batch)]
        loss = _rank(self._settings, self._texts, batch, sentences, passages, gold)
        for whole in documents:
            place = batch.numbers(self._texts.document_of[gold])
            weight = self._settings.whole_documents / 2
            loss = loss + weight * ranking_loss(
                sentences, whole, place, temperature=self._settings.temperature
            )
        return loss


class _EnglishTerm(_NothingDrawn):
    """A question finds its version in the documents' language."""

    def __init__(self, weight: float, settings: Contrastive, material: Material) -> None:
        self.weight = weight
        self._settings = settings
        corpus, bank = material.corpus, material.bank
        own = corpus.document_language
        pairs = [(question, corpus.translation(question, own)) for question in material.questions]
        versions = [(question if other is None else other).text for question, other in pairs]
        self._questions = bank.rows((question.text for question, _ in pairs), "question")
        self._versions = bank.rows(versions, "question")
        self._usable = self._questions != self._versions
        if not self._usable.any():
            raise TrainingError(
                f"the term 'english' needs questions with a translation into {own!r}, and no "
                "training question has one. Set it to 0"
            )

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        chosen = batch.questions[self._usable[batch.questions]]
        return self._questions[chosen], self._versions[chosen]

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        same = _sharing(batch, *self.texts(batch))
        return _translation_loss(self._settings, vectors[0], vectors[1], same)


class _AnchorTerm(_NothingDrawn):
    """Texts stay near the vectors that they had at the start."""

    def __init__(self, weight: float, rows: np.ndarray, material: Material) -> None:
        self.weight = weight
        self._rows = rows
        self._start = material.bank.vectors(material.start, rows)

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        return (self._rows,)

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        return anchor_loss(vectors[0], self._start)


class _PairTerm:
    """A sentence finds its translation in the batch, and the other way round."""

    def __init__(
        self,
        wanted: ParallelPairs,
        settings: Contrastive,
        pairs: Sequence[SentencePairs],
        bank: TextBank,
    ) -> None:
        self.weight = wanted.weight
        self.columns = _columns(wanted.share)
        self._share = wanted.share
        self._settings = settings
        self._english = _rows_of(bank, pairs, lambda group: group.english)
        self._other = _rows_of(bank, pairs, lambda group: group.other)
        lengths = np.array([len(group) for group in pairs])
        self._lengths, self._starts = lengths, np.cumsum(lengths) - lengths
        # Between equal shares and shares by size: small languages are seen more often.
        self._chances = np.sqrt(lengths) / np.sqrt(lengths).sum()

    def draw(self, rng: np.random.Generator, examples: int) -> np.ndarray:
        def some(count: int) -> np.ndarray:
            group = rng.choice(len(self._lengths), count, p=self._chances)
            within = (rng.random(count) * self._lengths[group]).astype(np.int64)
            chosen: np.ndarray = self._starts[group] + within
            return chosen

        return _draw(rng, examples, self._share, some)

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        chosen = _present(batch)
        return self._other[chosen], self._english[chosen]

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        same = _sharing(batch, *self.texts(batch))
        return _translation_loss(self._settings, vectors[0], vectors[1], same)


def _translation_loss(
    settings: Contrastive, foreign: torch.Tensor, english: torch.Tensor, same: torch.Tensor
) -> torch.Tensor:
    loss = paired_loss(foreign, english, temperature=settings.temperature, same=same)
    if not settings.closeness:
        return loss
    return loss + settings.closeness * anchor_loss(foreign, english.detach())


def _rows_of(
    bank: TextBank,
    pairs: Sequence[SentencePairs],
    side: Callable[[SentencePairs], Sequence[str]],
) -> np.ndarray:
    rows: np.ndarray = np.concatenate([bank.rows(side(group), "passage") for group in pairs])
    return rows


class _AnsweredTerm:
    """A question of another source finds its passage among the batch's and the corpus's."""

    def __init__(
        self,
        given: AnsweredQuestions,
        temperature: float,
        questions: np.ndarray,
        passages: np.ndarray,
        others: np.ndarray,
    ) -> None:
        self.weight = given.weight
        self.columns = _columns(given.share)
        self._share = given.share
        self._temperature = temperature
        self._questions = questions
        self._passages = passages
        self._others = others

    def draw(self, rng: np.random.Generator, examples: int) -> np.ndarray:
        number = len(self._questions)
        return _draw(rng, examples, self._share, lambda count: rng.integers(0, number, count))

    def texts(self, batch: _Batch) -> Sequence[np.ndarray]:
        chosen = _present(batch)
        return self._questions[chosen], np.unique(self._passages[chosen]), self._others

    def loss(self, batch: _Batch, *vectors: torch.Tensor) -> torch.Tensor:
        questions, passages, others = vectors
        rows = self._passages[_present(batch)]
        gold = np.searchsorted(np.unique(rows), rows)
        candidates = torch.cat([passages, others])
        return ranking_loss(
            questions, candidates, batch.numbers(gold), temperature=self._temperature
        )


def _columns(share: float) -> int:
    return max(1, math.ceil(share))


def _draw(
    rng: np.random.Generator,
    examples: int,
    share: float,
    some: Callable[[int], np.ndarray],
) -> np.ndarray:
    """Draw ``share`` numbers an example on average, shape (examples, 1 or more), -1 for none."""
    columns = _columns(share)
    drawn: np.ndarray = some(examples * columns).reshape(examples, columns)
    drawn[rng.random(drawn.shape) >= share / columns] = _ABSENT
    return drawn


def _present(batch: _Batch) -> np.ndarray:
    drawn: np.ndarray = batch.drawn[batch.drawn != _ABSENT]
    return drawn


def _sharing(batch: _Batch, first: np.ndarray, second: np.ndarray) -> torch.Tensor:
    """Return which pairs share a text, shape (pairs, pairs), bool."""
    one, other = batch.numbers(first), batch.numbers(second)
    return (one[:, None] == one[None, :]) | (other[:, None] == other[None, :])
