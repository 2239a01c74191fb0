"""What mining works on and what it yields: candidates and triplets, all by id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from clrelkt.corpora.model import Corpus, Document, Question
from clrelkt.errors import DataError

__all__ = ["CandidateSet", "Granularity", "Pool", "Triplets", "gold_id", "pools_of"]

Granularity = Literal["document", "passage"]
"""What is ranked: whole documents (their passages joined by a space) or single passages."""

Pool = tuple[tuple[Document, ...], frozenset[str]]
"""Documents, and the question languages that are searched in them."""


@dataclass(frozen=True, slots=True)
class Triplets:
    """Questions, each with a text that answers it and one that does not, by id.

    Row ``i`` is ``question_ids[i]``, ``positive_ids[i]``, ``negative_ids[i]``; the last two are
    document or passage ids, as ``granularity`` says. ``left_out`` counts the questions that
    yielded nothing, under the reason.
    """

    question_ids: tuple[str, ...]
    positive_ids: tuple[str, ...]
    negative_ids: tuple[str, ...]
    granularity: Granularity
    left_out: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[tuple[str, str, str]],
        granularity: Granularity,
        left_out: Mapping[str, int],
    ) -> Triplets:
        """Build triplets from (question id, positive id, negative id); zero counts are dropped."""
        found = tuple(rows)
        counts = {reason: count for reason, count in left_out.items() if count}
        return cls(
            tuple(question for question, _, _ in found),
            tuple(positive for _, positive, _ in found),
            tuple(negative for _, _, negative in found),
            granularity,
            MappingProxyType(counts),
        )

    def __len__(self) -> int:
        return len(self.question_ids)


@dataclass(frozen=True)
class CandidateSet:
    """Texts that a question can be matched with; the three tuples run in parallel.

    At document granularity ``ids`` and ``document_ids`` are the same.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    document_ids: tuple[str, ...]

    @classmethod
    def of(cls, documents: Sequence[Document], granularity: Granularity) -> CandidateSet:
        """Return ``documents``, or their passages, as candidates."""
        if granularity == "document":
            ids = tuple(document.id for document in documents)
            return cls(ids, tuple(document.text for document in documents), ids)
        passages = [passage for document in documents for passage in document.passages]
        return cls(
            tuple(passage.id for passage in passages),
            tuple(passage.text for passage in passages),
            tuple(passage.document_id for passage in passages),
        )

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Where each id stands."""
        return {candidate: place for place, candidate in enumerate(self.ids)}

    def gold_position(self, question: Question, granularity: Granularity) -> int:
        """Return where the gold of ``question`` stands.

        Raises:
            DataError: the question has no gold, or it is not among the candidates.
        """
        gold = gold_id(question, granularity)
        if gold not in self.position:
            raise DataError(
                f"question {question.id!r}: its gold {granularity} {gold!r} (document "
                f"{question.document_id!r}) is not in the pool of language "
                f"{question.language!r}, which has {len(self.ids)} {granularity}s"
            )
        return self.position[gold]

    def __len__(self) -> int:
        return len(self.ids)


def gold_id(question: Question, granularity: Granularity) -> str:
    """Return the id of the document or passage that answers ``question``.

    Raises:
        DataError: the question names none.
    """
    gold = question.document_id if granularity == "document" else question.passage_id
    if gold is None:
        raise DataError(
            f"question {question.id!r} ({question.language}) names no gold {granularity}; "
            "this corpus has questions without documents and can neither be mined nor searched"
        )
    return gold


def pools_of(corpus: Corpus, languages: Iterable[str]) -> list[Pool]:
    """Return the distinct pools that questions in ``languages`` are searched in."""
    served: dict[tuple[str, ...], set[str]] = {}
    pools: dict[tuple[str, ...], tuple[Document, ...]] = {}
    for language in dict.fromkeys(languages):
        pool = corpus.pool(language)
        key = tuple(document.id for document in pool)
        pools.setdefault(key, pool)
        served.setdefault(key, set()).add(language)
    return [(pools[key], frozenset(served[key])) for key in pools]
