"""Questions, passages, documents, and the corpus that holds them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from clrelkt.errors import DataError, UnknownNameError

__all__ = ["Answer", "Corpus", "Document", "FixedSplit", "Part", "Passage", "Question"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the character at which it starts in the gold passage (None: not known)."""

    text: str
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph of a document."""

    id: str
    document_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A document: its passages in order."""

    id: str
    title: str
    passages: tuple[Passage, ...]

    @property
    def text(self) -> str:
        """The passages, joined by one space."""
        return " ".join(passage.text for passage in self.passages)


@dataclass(frozen=True, slots=True)
class Question:
    """A question in one language, and where its answer stands.

    ``parallel_id`` is shared by all translations of one question; ``id`` is unique in the corpus.
    The gold ids are None where a corpus has questions without documents (XOR-Retrieve).
    ``translated_by`` names the model that made a machine translation; None is a person's text.
    """

    id: str
    language: str
    text: str
    document_id: str | None
    passage_id: str | None
    answers: tuple[Answer, ...]
    parallel_id: str
    translated_by: str | None = None


Part = Literal["fit", "test", "unused"]
"""What a question is for: to choose and train with, to test on, or neither."""


@dataclass(frozen=True, slots=True)
class FixedSplit:
    """A split that the makers of a corpus have drawn.

    ``parts`` maps each parallel id to its part; a seed divides ``fit`` into train and dev.
    ``pools`` holds the pools of a part where they differ from the whole corpus's.
    ``remedy`` says how to come by the questions of a part that is empty.
    """

    parts: Mapping[str, Part]
    pools: Mapping[Part, Mapping[str, tuple[str, ...]]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    remedy: str = ""


@dataclass(frozen=True)
class Corpus:
    """Questions in several languages over documents in one.

    ``pools`` maps a question language to the ids of the documents that its questions are
    searched in: in MLQA each language has its own. A language that is not named there is
    searched in every document. ``fixed_split`` is None where a split is free to be drawn.
    ``passage_translations`` maps a language to the texts of passages in it, by passage id; the
    documents' own language is not in it. ``sentence_breaks`` says, by passage id, from which
    character to which each sentence of a passage goes, where the makers of a corpus have marked
    them (XQuAD-R).
    """

    name: str
    questions: tuple[Question, ...]
    documents: tuple[Document, ...]
    pools: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    document_language: str = "en"
    fixed_split: FixedSplit | None = None
    passage_translations: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    sentence_breaks: Mapping[str, tuple[tuple[int, int], ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Languages of the questions, the documents' own first, then alphabetically."""
        found = {question.language for question in self.questions}
        return tuple(sorted(found, key=lambda code: (code != self.document_language, code)))

    @cached_property
    def document_by_id(self) -> Mapping[str, Document]:
        """Every document under its id."""
        return {document.id: document for document in self.documents}

    @cached_property
    def passage_by_id(self) -> Mapping[str, Passage]:
        """Every passage under its id."""
        return {passage.id: passage for document in self.documents for passage in document.passages}

    @cached_property
    def question_by_parallel_id(self) -> Mapping[tuple[str, str], Question]:
        """Every question under its parallel id and language."""
        return {(question.parallel_id, question.language): question for question in self.questions}

    def pool(self, language: str) -> tuple[Document, ...]:
        """Return the documents that questions in ``language`` are searched in."""
        ids = self.pools.get(language)
        if ids is None:
            return self.documents
        return tuple(self.document_by_id[document_id] for document_id in ids)

    def translation(self, question: Question, language: str) -> Question | None:
        """Return the same question in ``language``, or None where the corpus has none."""
        return self.question_by_parallel_id.get((question.parallel_id, language))

    def in_languages(self, languages: Iterable[str]) -> Corpus:
        """Return the corpus with the questions of ``languages`` alone; documents stay.

        Raises:
            UnknownNameError: the corpus has no question in one of them.
        """
        wanted = tuple(languages)
        for code in wanted:
            if code not in self.languages:
                raise UnknownNameError(
                    f"corpus {self.name!r} has no questions in {code!r}; "
                    f"it has {' '.join(self.languages)}"
                )
        return self.with_questions(q for q in self.questions if q.language in set(wanted))

    def with_questions(self, questions: Iterable[Question]) -> Corpus:
        """Return the corpus with other questions over the same documents and pools."""
        return replace(self, questions=tuple(questions))

    def without_documents(self, ids_or_titles: Iterable[str]) -> Corpus:
        """Return the corpus without documents, in all pools, and without their questions.

        A title names every document that has it. Questions whose gold is another document stay,
        translations of those that go among them.

        Raises:
            DataError: the corpus has no document of that id or title.
        """
        names = tuple(dict.fromkeys(ids_or_titles))
        known = {name for document in self.documents for name in (document.id, document.title)}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DataError(
                f"corpus {self.name!r} has no document with the id or title "
                f"{', '.join(map(repr, unknown))}"
            )
        gone = {
            document.id
            for document in self.documents
            if document.id in set(names) or document.title in set(names)
        }
        left = tuple(document for document in self.documents if document.id not in gone)
        passages = {passage.id for document in left for passage in document.passages}
        fixed = self.fixed_split
        return replace(
            self,
            questions=tuple(q for q in self.questions if q.document_id not in gone),
            documents=left,
            pools=_without(self.pools, gone),
            fixed_split=fixed
            and replace(
                fixed, pools={part: _without(pools, gone) for part, pools in fixed.pools.items()}
            ),
            passage_translations={
                code: {id_: text for id_, text in texts.items() if id_ in passages}
                for code, texts in self.passage_translations.items()
            },
            sentence_breaks={
                id_: breaks for id_, breaks in self.sentence_breaks.items() if id_ in passages
            },
        )

    def gold_document(self, question: Question) -> Document:
        """Return the document that answers ``question``.

        Raises:
            DataError: the question names no document, or one that is not in the corpus.
        """
        if question.document_id is None or question.document_id not in self.document_by_id:
            raise DataError(
                f"question {question.id!r} of corpus {self.name!r}: its gold document "
                f"{question.document_id!r} is not in the corpus"
            )
        return self.document_by_id[question.document_id]

    def questions_in(self, language: str) -> Sequence[Question]:
        """Return the questions asked in ``language``, in corpus order."""
        return [question for question in self.questions if question.language == language]


def _without(
    pools: Mapping[str, tuple[str, ...]], gone: Collection[str]
) -> dict[str, tuple[str, ...]]:
    return {code: tuple(id_ for id_ in ids if id_ not in gone) for code, ids in pools.items()}
