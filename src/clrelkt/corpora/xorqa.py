"""XOR-TyDi QA: questions of seven languages whose answers stand in English."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.corpora.model import Answer, Corpus, Document, FixedSplit, Part, Passage, Question
from clrelkt.corpora.records import FaultLog, Node, read_json_lines, read_text
from clrelkt.corpora.squad import SquadFile, parse_squad
from clrelkt.errors import DataError

__all__ = ["XorFiles", "is_xor", "note_xor_faults", "read_xor", "read_xor_lines", "xor_files"]

_PARTS: dict[str, Part] = {"train": "fit", "dev": "test"}


@dataclass(frozen=True, slots=True)
class XorFiles:
    """The files of a folder; each mapping is from "train" and "dev"."""

    questions: Mapping[str, Path]
    gold: Mapping[str, Path]
    translations: tuple[tuple[str, Path, Path], ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, and its gold passage where the file has it."""

    id: str
    language: str
    text: str
    answers: tuple[Answer, ...]
    record: str
    document_id: str | None = None
    passage_id: str | None = None


def is_xor(folder: Path) -> bool:
    """Tell whether a folder holds files of XOR-TyDi QA."""
    files = xor_files(folder)
    return bool(files.questions or files.gold)


def xor_files(folder: Path) -> XorFiles:
    """Find the questions, gold paragraphs and human translations in a folder."""
    questions: dict[str, Path] = {}
    gold: dict[str, Path] = {}
    for kind in _PARTS:
        questions |= _newest(kind, folder.glob(f"xor_{kind}_retrieve*.jsonl"))
        gold |= _newest(kind, folder.glob(f"gp_squad_{kind}*.json"))
    pairs = sorted(path for path in folder.glob("??-en") if path.is_dir())
    return XorFiles(
        questions,
        gold,
        tuple(
            (path.name[:2], path / f"{path.name[:2]}.txt", path / "en.txt")
            for path in pairs
            if (path / "en.txt").exists() or (path / f"{path.name[:2]}.txt").exists()
        ),
    )


def _newest(kind: str, paths: Iterable[Path]) -> dict[str, Path]:
    # Versions sort by name with the newest last: "..._span.jsonl", "..._span_v1_1.jsonl".
    found = sorted(paths, key=lambda path: path.stem)
    return {kind: found[-1]} if found else {}


def read_xor(folder: Path, *, name: str | None = None) -> Corpus:
    """Read XOR-TyDi QA from a folder.

    Questions have no documents, unless the folder holds the gold paragraphs
    (``gp_squad_train_data.json`` and ``gp_squad_dev_data.json``): then a part's questions are
    those that have a gold paragraph. English translations are joined by the question's text and
    become English questions with the same ``parallel_id``. The dev file is the test split; what
    stands in train and dev alike is left out of training.

    Raises:
        DataError: there is no such file in the folder.
        CorpusError: the files have faults.
    """
    log = FaultLog()
    files = xor_files(folder)
    if not files.questions and not files.gold:
        raise DataError(f"{folder}: no file such as xor_train_retrieve_eng_span.jsonl")
    lines = {
        kind: tuple(read_xor_lines(path, log))
        for kind, path in files.questions.items()
        if kind not in files.gold
    }
    squad = {
        kind: file
        for kind, path in files.gold.items()
        if (file := parse_squad(path, log, repeats=True)) is not None
    }
    paragraphs = _Paragraphs(squad.values())
    asked = lines | {kind: tuple(paragraphs.questions(file, log)) for kind, file in squad.items()}
    note_repeated_ids(files, asked, log)
    translations = _translations(files, log)
    log.stop_if_any()
    return _corpus(name or folder.name, folder, asked, paragraphs.documents, translations)


def note_xor_faults(folder: Path, log: FaultLog) -> tuple[tuple[str, str], ...]:
    """Note every fault of the folder's files; return language and id of each question."""
    files = xor_files(folder)
    asked = {kind: tuple(read_xor_lines(path, log)) for kind, path in files.questions.items()}
    note_repeated_ids(files, asked, log)
    squad = [parse_squad(path, log, repeats=True) for path in files.gold.values()]
    paragraphs = _Paragraphs(file for file in squad if file is not None)
    gold = [q for file in squad if file is not None for q in paragraphs.questions(file, log)]
    _translations(files, log)
    found = dict.fromkeys((q.language, q.id) for q in gold)
    return tuple(dict.fromkeys((q.language, q.id) for part in asked.values() for q in part) | found)


def read_xor_lines(path: Path, log: FaultLog) -> Iterator[_Asked]:
    """Yield the questions of a ``.jsonl`` file that can be used, and note the others' faults."""
    for node in read_json_lines(path, log):
        id_ = node.text("id", "id")
        named = node.named(f"id {id_}") if id_ else node
        text = named.text("question", "question")
        answers = [child.as_text("answer") for child in named.members("answers")]
        tag = named.text("lang", "language")
        language = None if tag is None else _checked_language(tag, named)
        if id_ is not None and text is not None and language is not None:
            distinct = dict.fromkeys(answer for answer in answers if answer is not None)
            yield _Asked(id_, language, text, tuple(map(Answer, distinct)), named.record)


def note_repeated_ids(
    files: XorFiles, asked: Mapping[str, tuple[_Asked, ...]], log: FaultLog
) -> None:
    """Note ids that stand twice, in one file or in train and dev."""
    first: dict[str, tuple[Path, str]] = {}
    for kind, questions in asked.items():
        path = files.gold.get(kind) or files.questions[kind]
        for question in questions:
            if question.id in first:
                file, record = first[question.id]
                place = record.split(" (")[0]
                where = place if file == path else f"{file.name}, {place},"
                log.add(path, question.record, f"id {question.id!r} stands at {where} too")
            first.setdefault(question.id, (path, question.record))


class _Paragraphs:
    """The gold paragraphs as documents: one a title, with its distinct contexts as passages."""

    def __init__(self, files: Iterable[SquadFile]) -> None:
        contexts: dict[str, dict[str, None]] = {}
        for file in files:
            for article in file.articles:
                of_title = contexts.setdefault(article.title, {})
                of_title.update((paragraph.context, None) for paragraph in article.paragraphs)
        self._passage_ids = {
            (title, text): f"{title}#{number}"
            for title, texts in contexts.items()
            for number, text in enumerate(texts)
        }
        self.documents = tuple(
            Document(
                title,
                title,
                tuple(Passage(self._passage_ids[title, text], title, text) for text in texts),
            )
            for title, texts in contexts.items()
        )

    def questions(self, file: SquadFile, log: FaultLog) -> Iterator[_Asked]:
        """Yield a file's questions, each id once: its first gold paragraph counts."""
        seen: dict[str, str] = {}
        for article, number, entry in file.entries():
            node = Node(entry.language, file.path, entry.record, log)
            language = _checked_language(entry.language or "", node)
            if entry.id in seen:
                if seen[entry.id] != entry.text:
                    node.fault(f"id {entry.id!r} stands elsewhere too, with another question")
                continue
            seen[entry.id] = entry.text
            if language is not None:
                context = article.paragraphs[number].context
                yield _Asked(
                    entry.id,
                    language,
                    entry.text,
                    entry.answers,
                    entry.record,
                    article.title,
                    self._passage_ids[article.title, context],
                )


def _checked_language(tag: str, node: Node) -> str | None:
    code = tag.strip()
    if code in ISO_639_1:
        return code
    node.fault(f"language {tag!r} is no code of ISO 639-1")
    return None


def _translations(files: XorFiles, log: FaultLog) -> dict[tuple[str, str], str]:
    """Map language and joined text of a question to its English translation."""
    english: dict[tuple[str, str], str] = {}
    for language, own, other in files.translations:
        texts, translated = read_text(own, log), read_text(other, log)
        if texts is None or translated is None:
            continue
        lines, english_lines = texts.split("\n"), translated.split("\n")
        if len(lines) != len(english_lines):
            message = f"has {len(lines)} lines, {other.name} beside it {len(english_lines)}"
            log.add(own, "", f"{message}; line n of one must translate line n of the other")
            continue
        for text, translation in zip(lines, english_lines, strict=True):
            # A line that nobody translated is blank.
            if text.strip() and translation.strip():
                english.setdefault((language, _join_key(text)), " ".join(translation.split()))
    return english


def _join_key(text: str) -> str:
    return " ".join(text.split())


def _leak_key(text: str) -> str:
    """Return the text as two files may spell it alike: case, width and end marks aside."""
    folded = _join_key(unicodedata.normalize("NFKC", text).casefold())
    while folded and (folded[-1] == " " or unicodedata.category(folded[-1]).startswith("P")):
        folded = folded[:-1]
    return folded


def _corpus(
    name: str,
    folder: Path,
    asked: Mapping[str, tuple[_Asked, ...]],
    documents: tuple[Document, ...],
    translations: Mapping[tuple[str, str], str],
) -> Corpus:
    tested = {_leak_key(question.text) for question in asked.get("dev", ())}
    parts: dict[str, Part] = {}
    for kind, questions in asked.items():
        for question in questions:
            leaks = kind == "train" and _leak_key(question.text) in tested
            parts[question.id] = "unused" if leaks else _PARTS[kind]
    everything = [question for questions in asked.values() for question in questions]
    return Corpus(
        name=name,
        questions=tuple(
            version for question in everything for version in _versions(question, translations)
        ),
        documents=documents,
        fixed_split=FixedSplit(
            parts, remedy=f"put XOR-TyDi's train and dev questions into {folder}"
        ),
    )


def _versions(asked: _Asked, translations: Mapping[tuple[str, str], str]) -> Iterator[Question]:
    texts = {asked.language: asked.text}
    english = translations.get((asked.language, _join_key(asked.text)))
    if english is not None:
        texts.setdefault("en", english)
    for language, text in texts.items():
        yield Question(
            id=f"{language}:{asked.id}",
            language=language,
            text=text,
            document_id=asked.document_id,
            passage_id=asked.passage_id,
            answers=asked.answers,
            parallel_id=asked.id,
        )
