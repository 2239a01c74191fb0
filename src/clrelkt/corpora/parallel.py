"""Parallel sets: one SQuAD-form file a question language, sharing ids, over English documents.

XQuAD and XQuAD-R have this form, and so has the bundled corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from clrelkt.corpora.model import Answer, Corpus, Question
from clrelkt.corpora.records import FaultLog
from clrelkt.corpora.squad import SquadFile, document_of, parse_squad, sentence_breaks_of
from clrelkt.errors import DataError

__all__ = ["note_parallel_faults", "parallel_files", "read_parallel"]


@dataclass(frozen=True, slots=True)
class _Gold:
    """Where the English file has the answer to a question."""

    title: str
    paragraphs: int
    number: int
    answers: tuple[Answer, ...]


def parallel_files(folder: Path) -> tuple[Path, ...]:
    """Return the JSON files of a folder, sorted by name."""
    return tuple(sorted(folder.glob("*.json")))


def read_parallel(folder: Path, *, name: str | None = None, complete: bool = True) -> Corpus:
    """Read a folder of parallel files; documents and answers are those of the English file.

    Args:
        folder: the folder.
        name: the corpus's name (default: the folder's).
        complete: whether each file must hold every question of the English one.

    Raises:
        DataError: the folder has no JSON file, or none in English.
        CorpusError: the files have faults, or do not fit the English one.
    """
    paths = parallel_files(folder)
    if not paths:
        raise DataError(f"{folder}: no JSON files here; expected name.en.json and the like")
    log = FaultLog()
    parsed = [file for path in paths if (file := parse_squad(path, log)) is not None]
    note_parallel_faults(parsed, log, complete=complete)
    log.stop_if_any()
    english = next((file for file in parsed if file.languages.question == "en"), None)
    if english is None:
        raise DataError(
            f"{folder}: no English file among {' '.join(path.name for path in paths)}; "
            "the documents are read from name.en.json"
        )
    gold = _gold_by_id(english)
    files = [english, *(file for file in parsed if file is not english)]
    return Corpus(
        name=name or folder.name,
        questions=tuple(question for file in files for question in _questions(file, gold)),
        documents=tuple(document_of(article) for article in english.articles),
        passage_translations=MappingProxyType(
            {
                file.languages.question: translated
                for file in files
                if file is not english and (translated := _passage_translations(file, english))
            }
        ),
        sentence_breaks=sentence_breaks_of(english),
    )


def _passage_translations(file: SquadFile, english: SquadFile) -> Mapping[str, str]:
    """Return the contexts by passage id, of articles with as many paragraphs as in English.

    A file that repeats the English contexts translates none of them.
    """
    paragraphs = {article.title: article.paragraphs for article in english.articles}
    return {
        f"{article.title}#{number}": paragraph.context
        for article in file.articles
        if len(paragraphs.get(article.title, ())) == len(article.paragraphs)
        for number, paragraph in enumerate(article.paragraphs)
        if paragraph.context != paragraphs[article.title][number].context
    }


def note_parallel_faults(files: Sequence[SquadFile], log: FaultLog, *, complete: bool) -> None:
    """Note what does not fit between the files of a parallel set."""
    _note_repeated_languages(files, log)
    english = next((file for file in files if file.languages.question == "en"), None)
    if english is None:
        return
    gold = _gold_by_id(english)
    for file in files:
        if file is english:
            continue
        _note_misplaced(file, english, gold, log)
        if complete:
            present = {entry.id for _, _, entry in file.entries()}
            for id_ in gold:
                if id_ not in present:
                    message = f"the question is missing here; {english.path.name} has it"
                    log.add(file.path, f"id {id_}", message)


def _note_repeated_languages(files: Sequence[SquadFile], log: FaultLog) -> None:
    first: dict[str, Path] = {}
    for file in files:
        language = file.languages.question
        if language in first:
            log.add(
                file.path,
                "",
                f"holds questions in {language!r}, as {first[language].name} does; expected one "
                "file a language, with its code in the name (name.de.json)",
            )
        first.setdefault(language, file.path)


def _note_misplaced(
    file: SquadFile, english: SquadFile, gold: Mapping[str, _Gold], log: FaultLog
) -> None:
    for article, number, entry in file.entries():
        expected = gold.get(entry.id)
        if expected is None:
            message = (
                f"its gold passage is missing: {english.path.name} has no question {entry.id!r}"
            )
            log.add(file.path, entry.record, message)
        elif article.title != expected.title:
            message = f"is a question of {article.title!r} here, of {expected.title!r} in English"
            log.add(file.path, entry.record, message)
        elif len(article.paragraphs) == expected.paragraphs and number != expected.number:
            message = (
                f"is a question of paragraph {number} of {article.title!r} here, "
                f"of paragraph {expected.number} in English"
            )
            log.add(file.path, entry.record, message)


def _gold_by_id(english: SquadFile) -> dict[str, _Gold]:
    return {
        entry.id: _Gold(article.title, len(article.paragraphs), number, entry.answers)
        for article, number, entry in english.entries()
    }


def _questions(file: SquadFile, gold: Mapping[str, _Gold]) -> Iterator[Question]:
    language = file.languages.question
    for _, _, entry in file.entries():
        where = gold[entry.id]
        yield Question(
            id=f"{language}:{entry.id}",
            language=language,
            text=entry.text,
            document_id=where.title,
            passage_id=f"{where.title}#{where.number}",
            answers=where.answers,
            parallel_id=entry.id,
        )
