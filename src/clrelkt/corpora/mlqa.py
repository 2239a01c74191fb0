"""MLQA: questions in seven languages, each language with English documents of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clrelkt.corpora.model import Corpus, Document, FixedSplit, Part, Question
from clrelkt.corpora.records import FaultLog
from clrelkt.corpora.squad import SquadFile, document_of, parse_squad
from clrelkt.errors import DataError

__all__ = ["is_mlqa", "mlqa_files", "note_mlqa_faults", "read_mlqa"]

_NAME = re.compile(r"(dev|test)-context-[a-z]{2}-question-[a-z]{2}\.json")
_PARTS: dict[str, Part] = {"dev": "test", "test": "fit"}
"""MLQA's dev files are what everyone tests on; its test files are there to train with."""


def is_mlqa(folder: Path) -> bool:
    """Tell whether a folder holds MLQA's files, or its ``dev`` and ``test`` folders."""
    return bool(mlqa_files(folder, "dev") or mlqa_files(folder, "test"))


def mlqa_files(folder: Path, kind: str) -> tuple[Path, ...]:
    """Return the files of ``kind`` ("dev" or "test"), in its own folder or in this one."""
    found = (*folder.glob(f"{kind}/{kind}-context-*.json"), *folder.glob(f"{kind}-context-*.json"))
    return tuple(sorted(path for path in found if _NAME.fullmatch(path.name)))


def read_mlqa(folder: Path, *, name: str | None = None) -> Corpus:
    """Read MLQA's files with English contexts.

    The questions of ``dev`` are the corpus's test split, whole; those of ``test``, where a user
    has them, are there to train with. A document's id begins with the language of the questions
    that it is a pool for, since each language has its own choice of paragraphs.

    Raises:
        DataError: there is no such file in the folder.
        CorpusError: the files have faults.
    """
    log = FaultLog()
    files = {
        part: [
            file
            for path in mlqa_files(folder, kind)
            if "-context-en-" in path.name and (file := parse_squad(path, log)) is not None
        ]
        for kind, part in _PARTS.items()
    }
    for part in files:
        note_mlqa_faults(files[part], log)
    log.stop_if_any()
    if not any(files.values()):
        raise DataError(f"{folder}: no file such as dev/dev-context-en-question-de.json")
    return _corpus(name or folder.name, folder, files)


def note_mlqa_faults(files: Sequence[SquadFile], log: FaultLog) -> None:
    """Note what does not fit between files of one kind (dev or test).

    For one language of contexts, an id must belong to one title and one text in all files, and
    every question must be asked in the language of the contexts too.
    """
    by_context: dict[str, list[SquadFile]] = {}
    for file in files:
        by_context.setdefault(file.languages.context, []).append(file)
    for context, group in by_context.items():
        own = next((file for file in group if file.languages.question == context), None)
        if own is None:
            continue
        gold = {
            entry.id: (article.title, article.paragraphs[number].context)
            for article, number, entry in own.entries()
        }
        for file in group:
            for article, number, entry in file.entries():
                place = (article.title, article.paragraphs[number].context)
                if entry.id not in gold:
                    message = f"its gold passage is missing: {own.path.name} has no such question"
                    log.add(file.path, entry.record, message)
                elif gold[entry.id][0] != place[0]:
                    message = f"is a question of {place[0]!r} here, of {gold[entry.id][0]!r} in "
                    log.add(file.path, entry.record, message + own.path.name)
                elif gold[entry.id] != place:
                    message = f"has another passage here than in {own.path.name}"
                    log.add(file.path, entry.record, message)


def _corpus(name: str, folder: Path, files: dict[Part, list[SquadFile]]) -> Corpus:
    documents: dict[Part, dict[str, tuple[Document, ...]]] = {
        part: {
            file.languages.question: tuple(
                document_of(article, _prefix(file, part)) for article in file.articles
            )
            for file in group
        }
        for part, group in files.items()
    }
    pools = {
        part: {code: tuple(document.id for document in found) for code, found in group.items()}
        for part, group in documents.items()
    }
    languages = sorted({code for group in pools.values() for code in group})
    return Corpus(
        name=name,
        questions=tuple(
            question
            for part, group in files.items()
            for file in group
            for question in _questions(file, _prefix(file, part))
        ),
        documents=tuple(
            document
            for group in documents.values()
            for found in group.values()
            for document in found
        ),
        pools={
            code: tuple(id_ for group in pools.values() for id_ in group.get(code, ()))
            for code in languages
        },
        fixed_split=FixedSplit(
            parts={
                entry.id: part
                for part, group in files.items()
                for file in group
                for _, _, entry in file.entries()
            },
            pools=pools,
            remedy=f"put MLQA's test files into {folder / 'test'}, its dev files into "
            f"{folder / 'dev'} (clrelkt data get mlqa fetches both)",
        ),
    )


def _prefix(file: SquadFile, part: Part) -> str:
    # An article may stand in dev and in test, each time with paragraphs of its own.
    return f"{file.languages.question}:" if part == "test" else f"{file.languages.question}:test:"


def _questions(file: SquadFile, prefix: str) -> Iterator[Question]:
    language = file.languages.question
    for article, number, entry in file.entries():
        document_id = prefix + article.title
        yield Question(
            id=f"{language}:{entry.id}",
            language=language,
            text=entry.text,
            document_id=document_id,
            passage_id=f"{document_id}#{number}",
            answers=entry.answers,
            parallel_id=entry.id,
        )
