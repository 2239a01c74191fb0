"""SQuAD-form JSON: articles of paragraphs with questions and their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clrelkt.corpora.languages import ISO_639_1, FileLanguages, languages_of_file
from clrelkt.corpora.model import Answer, Corpus, Document, Passage, Question
from clrelkt.corpora.records import FaultLog, Node, read_json
from clrelkt.errors import CorpusError

__all__ = [
    "Article",
    "Entry",
    "Paragraph",
    "SquadFile",
    "document_of",
    "is_squad",
    "parse_squad",
    "read_squad",
    "sentence_breaks_of",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """A question as it stands in a file.

    ``language`` is the record's own tag, unchecked: only XOR-TyDi's gold paragraphs have one.
    """

    id: str
    text: str
    answers: tuple[Answer, ...]
    record: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A context and the questions that it answers.

    ``sentence_breaks`` are where its sentences begin and end; empty where the file has none.
    """

    context: str
    entries: tuple[Entry, ...]
    sentence_breaks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Article:
    """A title and its paragraphs."""

    title: str
    paragraphs: tuple[Paragraph, ...]


@dataclass(frozen=True, slots=True)
class SquadFile:
    """A SQuAD-form file as it was read."""

    path: Path
    languages: FileLanguages
    articles: tuple[Article, ...]

    def entries(self) -> Iterator[tuple[Article, int, Entry]]:
        """Yield each question with its article and the number of its paragraph, from 0."""
        for article in self.articles:
            for number, paragraph in enumerate(article.paragraphs):
                for entry in paragraph.entries:
                    yield article, number, entry


def is_squad(node: Node) -> bool:
    """Tell whether a JSON value is meant to be of the SQuAD form."""
    return isinstance(node.value, dict) and "data" in node.value


def read_squad(path: Path, *, name: str | None = None) -> Corpus:
    """Read one SQuAD-form file: its articles are the documents, its contexts the passages.

    The language of the questions is taken from a name such as ``name.de.json`` or
    ``question-de``; otherwise it is English. Questions marked ``is_impossible`` have no gold
    passage and are left out.

    Raises:
        CorpusError: the file has faults; all of them are in it.
    """
    log = FaultLog()
    file = parse_squad(path, log)
    if file is None or log.faults:
        raise CorpusError(log.faults)
    language = file.languages.question
    questions = (
        Question(
            id=f"{language}:{entry.id}",
            language=language,
            text=entry.text,
            document_id=article.title,
            passage_id=f"{article.title}#{number}",
            answers=entry.answers,
            parallel_id=entry.id,
        )
        for article, number, entry in file.entries()
    )
    return Corpus(
        name=name or path.stem,
        questions=tuple(questions),
        documents=tuple(document_of(article) for article in file.articles),
        document_language=file.languages.context,
        sentence_breaks=sentence_breaks_of(file),
    )


def document_of(article: Article, prefix: str = "") -> Document:
    """Return an article as a document; ``prefix`` goes before its ids."""
    document_id = prefix + article.title
    passages = tuple(
        Passage(f"{document_id}#{number}", document_id, paragraph.context)
        for number, paragraph in enumerate(article.paragraphs)
    )
    return Document(document_id, article.title, passages)


def sentence_breaks_of(file: SquadFile) -> Mapping[str, tuple[tuple[int, int], ...]]:
    """Return the sentence breaks by passage id, of passages that have them."""
    return MappingProxyType(
        {
            f"{article.title}#{number}": paragraph.sentence_breaks
            for article in file.articles
            for number, paragraph in enumerate(article.paragraphs)
            if paragraph.sentence_breaks
        }
    )


def parse_squad(path: Path, log: FaultLog, *, repeats: bool = False) -> SquadFile | None:
    """Read a file and note its faults; None where nothing in it can be used.

    Args:
        path: the file.
        log: where faults go.
        repeats: whether titles and ids may stand more than once (the gold paragraphs of
            XOR-TyDi have one record a question).
    """
    root = read_json(path, log)
    if root is None:
        return None
    if not is_squad(root):
        root.fault('is not of the SQuAD form: expected {"data": [{"title", "paragraphs"}]}')
        return None
    languages = languages_of_file(path)
    for code in sorted({languages.question, languages.context} - ISO_639_1):
        root.fault(
            f"the name tells of language {code!r}, which is no code of ISO 639-1; "
            "name the file like name.de.json, with a code that is"
        )
    articles = tuple(_articles(root))
    if not articles:
        root.fault("has no articles that can be used")
        return None
    file = SquadFile(path, languages, articles)
    if not repeats:
        _note_repeated_titles(root)
        _note_repeated_ids(file, log)
    return file


def _articles(root: Node) -> Iterator[Article]:
    for node in root.members("data"):
        title = node.text("title", "title")
        named = node.named(f"title {title!r}") if title else node
        before = len(root.log.faults)
        paragraphs = tuple(
            paragraph
            for child in named.members("paragraphs")
            if (paragraph := _paragraph(child)) is not None
        )
        if not paragraphs and len(root.log.faults) == before:
            named.fault("has no paragraphs")
        if title and paragraphs:
            yield Article(title, paragraphs)


def _paragraph(node: Node) -> Paragraph | None:
    context = node.text("context", "context")
    entries = tuple(
        entry
        for child in node.members("qas")
        if not _is_impossible(child) and (entry := _entry(child, context)) is not None
    )
    if context is None:
        return None
    breaks = node.get("sentence_breaks")
    return Paragraph(context, entries, () if breaks is None else _sentence_breaks(breaks, context))


def _sentence_breaks(node: Node, context: str) -> tuple[tuple[int, int], ...]:
    pairs: list[Any] = node.value if isinstance(node.value, list) else [node.value]
    end = 0
    for place, pair in enumerate(pairs):
        is_pair = isinstance(pair, list) and [type(limit) for limit in pair] == [int, int]
        if not is_pair or not end <= pair[0] < pair[1] <= len(context):
            node.fault(
                f"entry {place} does not fit: expected [start, end] pairs of characters in rising "
                f"order within the passage, which has {len(context)}"
            )
            return ()
        end = pair[1]
    return tuple((start, stop) for start, stop in pairs)


def _is_impossible(node: Node) -> bool:
    mark = node.get("is_impossible")
    return mark is not None and mark.value is True


def _entry(node: Node, context: str | None) -> Entry | None:
    id_ = node.text("id", "id")
    named = node.named(f"id {id_}") if id_ else node
    text = named.text("question", "question")
    before = len(node.log.faults)
    answers = tuple(
        answer
        for child in named.members("answers")
        if (answer := _answer(child, context)) is not None
    )
    if not answers and len(node.log.faults) == before:
        named.fault("has no answers")
    if id_ is None or text is None:
        return None
    language = named.get("lang")
    tag = language.value if language is not None and isinstance(language.value, str) else None
    return Entry(id_, text, answers, named.record, tag)


def _answer(node: Node, context: str | None) -> Answer | None:
    text = node.text("text", "answer")
    start = node.integer("answer_start")
    if text is None or start is None:
        return None
    if context is not None and (start < 0 or not context.startswith(text, start)):
        found = context.find(text)
        elsewhere = f"; it stands at character {found}" if found >= 0 else ""
        node.fault(f"answer {text!r} is not in the passage at character {start}{elsewhere}")
        return None
    return Answer(text, start)


def _note_repeated_titles(root: Node) -> None:
    first: dict[str, str] = {}
    for node in root.members("data"):
        title = node.get("title")
        if title is None or not isinstance(title.value, str):
            continue
        if title.value in first:
            node.fault(
                f"title {title.value!r} stands at {first[title.value]} too; "
                "a document has one title: merge the two or rename one"
            )
        first.setdefault(title.value, node.place)


def _note_repeated_ids(file: SquadFile, log: FaultLog) -> None:
    first: dict[str, str] = {}
    for _, _, entry in file.entries():
        if entry.id in first:
            message = f"id {entry.id!r} stands at {first[entry.id].split(' ')[0]} too"
            log.add(file.path, entry.record, f"{message}; ids must be unique")
        first.setdefault(entry.id, entry.record)
