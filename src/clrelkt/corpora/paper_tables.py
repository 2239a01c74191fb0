"""The tables that the paper's scripts work on.

They are called ``NAME_doc_en-xx.csv`` and ``NAME_question_en-xx.csv``; ``xx`` is the language of
the questions, documents are English. A table of documents has the columns ``doc_id``, ``doc``
(paragraphs on lines of their own) and perhaps ``title``; one of questions has ``doc_id``,
``question`` and perhaps ``question_id``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.corpora.model import Corpus, Document, FixedSplit, Part, Passage, Question
from clrelkt.corpora.records import FaultLog, read_text

__all__ = [
    "is_paper_tables",
    "note_paper_table_faults",
    "paper_documents",
    "paper_tables",
    "read_paper_tables",
]

_NAME = re.compile(r".*_(doc|question)_en-([a-z]{2})\.csv")
_PARTS: dict[str, Part] = {"train": "fit", "dev": "test"}
"""The scripts choose and test on the questions in ``dev``."""


@dataclass(frozen=True, slots=True)
class _Asked:
    document: str
    text: str
    key: str | None


@dataclass(slots=True)
class _Pair:
    """The tables of one language, of one part."""

    documents: dict[str, Document] = field(default_factory=dict)
    questions: list[_Asked] = field(default_factory=list)


def is_paper_tables(folder: Path) -> bool:
    """Tell whether a folder, or its ``train`` or ``dev`` folder, holds such tables."""
    return bool(paper_tables(folder))


def paper_tables(folder: Path) -> tuple[Path, ...]:
    """Return the tables in a folder and in its ``train`` and ``dev`` folders, sorted."""
    places = (folder, *(folder / kind for kind in _PARTS))
    found = (path for place in places for path in place.glob("*_en-*.csv"))
    return tuple(sorted(path for path in found if _NAME.fullmatch(path.name)))


def read_paper_tables(folder: Path, *, name: str | None = None) -> Corpus:
    """Read a folder of such tables.

    Questions in ``dev`` are the test split and those in ``train`` are there to train with; tables
    that lie in the folder itself are free to be split. Where ``question_id`` is missing, the rows
    of two languages are translations of each other if both tables name the same documents row by
    row. Documents with the same id are one if their texts are the same; otherwise each language
    has its own, as in MLQA.

    Raises:
        CorpusError: the tables have faults; all of them are in it.
    """
    log = FaultLog()
    corpus = _read(folder, name or folder.name, log)
    log.stop_if_any()
    return corpus


def note_paper_table_faults(folder: Path, log: FaultLog) -> tuple[tuple[str, str], ...]:
    """Note every fault of the tables; return language and id of each question."""
    questions = _read(folder, folder.name, log).questions
    return tuple((question.language, question.parallel_id) for question in questions)


def paper_documents(path: Path, log: FaultLog) -> Iterator[Document]:
    """Yield the documents of one table."""
    for place, row in _rows(path, ("doc_id", "doc"), log):
        lines = [line.strip() for line in row["doc"].split("\n") if line.strip()]
        id_ = row["doc_id"]
        passages = tuple(Passage(f"{id_}#{n}", id_, line) for n, line in enumerate(lines))
        if passages:
            yield Document(id_, row.get("title") or "", passages)
        else:
            log.add(path, place, "doc has no text")


def _read(folder: Path, name: str, log: FaultLog) -> Corpus:
    parts: dict[Part | None, dict[str, _Pair]] = {}
    for path in paper_tables(folder):
        kind, language = _kind(path)
        if language not in ISO_639_1:
            log.add(path, "", f"the name tells of language {language!r}, no code of ISO 639-1")
        part = _PARTS.get(path.parent.name) if path.parent != folder else None
        pair = parts.setdefault(part, {}).setdefault(language, _Pair())
        if kind == "doc":
            _add_documents(path, pair, log)
        else:
            pair.questions += _questions(path, log)
    questions: list[Question] = []
    documents: dict[str, Document] = {}
    pools: dict[Part | None, dict[str, tuple[str, ...]]] = {}
    fixed: dict[str, Part] = {}
    for part, pairs in parts.items():
        prefix = f"{part}:" if len(parts) > 1 else ""
        shared = _are_shared(pairs.values())
        aligned = _are_aligned(pairs)
        for language, pair in pairs.items():
            own = prefix if shared else f"{prefix}{language}:"
            renamed = {id_: _renamed(d, own) for id_, d in pair.documents.items()}
            documents |= {document.id: document for document in renamed.values()}
            pools.setdefault(part, {})[language] = tuple(d.id for d in renamed.values())
            for row, asked in enumerate(pair.questions):
                if asked.document not in renamed:
                    message = f"its document {asked.document!r} is in no table of documents"
                    log.add(folder, f"question {row} in {language}", message)
                    continue
                key = asked.key or (f"row {row}" if aligned else f"{language} row {row}")
                questions.append(_question(language, prefix + key, asked, renamed))
                if part is not None:
                    fixed[prefix + key] = part
    return Corpus(
        name=name,
        questions=tuple(questions),
        documents=tuple(documents.values()),
        pools={
            code: tuple(id_ for group in pools.values() for id_ in group.get(code, ()))
            for code in sorted({code for group in pools.values() for code in group})
        },
        fixed_split=FixedSplit(
            fixed,
            {part: group for part, group in pools.items() if part is not None},
            f"put the tables of both parts into {folder / 'train'} and {folder / 'dev'}",
        )
        if fixed
        else None,
    )


def _question(
    language: str, key: str, asked: _Asked, documents: Mapping[str, Document]
) -> Question:
    document = documents[asked.document]
    # The tables do not say which paragraph holds the answer; of one there is no doubt.
    only = document.passages[0].id if len(document.passages) == 1 else None
    return Question(f"{language}:{key}", language, asked.text, document.id, only, (), key)


def _kind(path: Path) -> tuple[str, str]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return match.group(1), match.group(2)


def _add_documents(path: Path, pair: _Pair, log: FaultLog) -> None:
    for document in paper_documents(path, log):
        if document.id in pair.documents:
            log.add(path, f"doc_id {document.id}", "stands more than once; ids must be unique")
        pair.documents[document.id] = document


def _questions(path: Path, log: FaultLog) -> Iterator[_Asked]:
    for _, row in _rows(path, ("doc_id", "question"), log):
        yield _Asked(row["doc_id"], row["question"], row.get("question_id") or None)


def _rows(
    path: Path, columns: tuple[str, ...], log: FaultLog
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table with their places, those that have text in ``columns``."""
    text = read_text(path, log)
    reader = csv.DictReader(io.StringIO(text or "", newline=""))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if text is not None and missing:
        log.add(path, "line 1", f"has no column {missing[0]!r}")
        return
    for row in reader:
        place = f"line {reader.line_num}"
        empty = [column for column in columns if not (row[column] or "").strip()]
        if empty:
            log.add(path, place, f"{empty[0]} is empty")
        else:
            yield place, row


def _are_shared(pairs: Iterable[_Pair]) -> bool:
    """Tell whether documents of the same id have the same text in all languages."""
    texts: dict[str, str] = {}
    return all(
        texts.setdefault(document.id, document.text) == document.text
        for pair in pairs
        for document in pair.documents.values()
    )


def _are_aligned(pairs: Mapping[str, _Pair]) -> bool:
    """Tell whether all languages' questions name the same documents row by row."""
    rows = {tuple(asked.document for asked in pair.questions) for pair in pairs.values()}
    return len(rows) == 1


def _renamed(document: Document, prefix: str) -> Document:
    if not prefix:
        return document
    id_ = prefix + document.id
    passages = (Passage(prefix + passage.id, id_, passage.text) for passage in document.passages)
    return Document(id_, document.title, tuple(passages))
