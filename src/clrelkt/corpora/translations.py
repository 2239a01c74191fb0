"""Machine translations of a corpus's questions, kept in a file beside it.

One JSON object a line::

    {"id": "fi:12", "language": "fi", "text": "...", "target": "en", "translation": "...",
     "flaw": null, "model": {"name": "...", "revision": null, "settings": {...}, ...}}

``flaw`` marks a translation that nobody should use: ``empty``, or ``cut short`` where the model's
limit ended it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from clrelkt.corpora.languages import ISO_639_1
from clrelkt.corpora.model import Corpus, Question
from clrelkt.corpora.records import FaultLog, Node, read_json_lines

__all__ = [
    "Flaw",
    "TranslatedQuestion",
    "is_translations_file",
    "note_translation_faults",
    "read_translations",
    "translations_beside",
    "with_translations",
]

Flaw = Literal["empty", "cut short"]
"""Why a translation is not used."""

_FILE_NAME = "translations.jsonl"


@dataclass(frozen=True, slots=True)
class TranslatedQuestion:
    """A line of the file: a question, its translation into ``target``, and who translated it.

    ``model`` holds at least ``name``, the model's.
    """

    id: str
    language: str
    text: str
    target: str
    translation: str
    flaw: Flaw | None
    model: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return asdict(self)


def translations_beside(corpus: Path) -> Path:
    """Return where the translations of a corpus in a folder or a file are looked for.

    In a folder that is ``translations.jsonl``; beside ``mine.de.json`` it is
    ``mine.de.translations.jsonl``.
    """
    return corpus / _FILE_NAME if corpus.is_dir() else corpus.with_suffix(f".{_FILE_NAME}")


def is_translations_file(path: Path) -> bool:
    """Tell by its name or its first line whether a file holds translations."""
    if path.name.endswith(_FILE_NAME):
        return True
    try:
        with path.open("rb") as file:
            return path.suffix == ".jsonl" and b'"translation": ' in file.readline()
    except OSError:
        return False


def with_translations(corpus: Corpus, path: Path) -> Corpus:
    """Add the translations of a file to a corpus, as questions in the documents' language.

    Each has the ``parallel_id``, gold and answers of the question that it translates, and says in
    ``translated_by`` which model made it. A question that has a translation keeps it, and a
    translation with a flaw is passed over.

    Raises:
        CorpusError: the file has faults, or translates other questions than these.
    """
    log = FaultLog()
    lines = _checked_lines(corpus, path, log)
    log.stop_if_any()
    target = corpus.document_language
    asked = {parallel_id for parallel_id, code in corpus.question_by_parallel_id if code == target}
    taken = {question.id for question in corpus.questions}
    added: list[Question] = []
    for question in corpus.questions:
        line = lines.get(question.id)
        if line is None or line.flaw is not None or question.parallel_id in asked:
            continue
        asked.add(question.parallel_id)
        id_ = _free_id(f"{target}:{question.id}", taken)
        taken.add(id_)
        added.append(_english(question, line, id_))
    return corpus.with_questions((*corpus.questions, *added))


def note_translation_faults(
    corpus: Corpus, path: Path, log: FaultLog
) -> tuple[TranslatedQuestion, ...]:
    """Note what is wrong with a file of translations, and what in it does not fit the corpus.

    Returns:
        The lines that can be read, each id once.
    """
    return tuple(_checked_lines(corpus, path, log).values())


def read_translations(path: Path, log: FaultLog) -> Iterator[tuple[Node, TranslatedQuestion]]:
    """Yield the lines that can be used, each with its place, and note the others' faults."""
    for node in read_json_lines(path, log):
        id_ = node.text("id", "id")
        named = node.named(f"id {id_}") if id_ else node
        before = len(log.faults)
        language, target = (_language(named, key) for key in ("language", "target"))
        text = named.text("text", "question")
        flaw = _flaw(named)
        translation = _translation(named, flaw)
        model = _model(named)
        if len(log.faults) == before and None not in (id_, text):
            yield (
                named,
                TranslatedQuestion(str(id_), language, str(text), target, translation, flaw, model),
            )


def _checked_lines(corpus: Corpus, path: Path, log: FaultLog) -> dict[str, TranslatedQuestion]:
    questions = {question.id: question for question in corpus.questions}
    lines: dict[str, TranslatedQuestion] = {}
    places: dict[str, str] = {}
    for node, line in read_translations(path, log):
        question = questions.get(line.id)
        if line.id in lines:
            node.fault(f"id {line.id!r} stands at {places[line.id]} too; leave one of them out")
        elif question is None:
            node.fault(f"{corpus.name} has no question {line.id!r}; leave the line out")
        elif (question.language, question.text) != (line.language, line.text):
            node.fault(
                f"translates {line.text!r} ({line.language}), but the question is "
                f"{question.text!r} ({question.language}); clrelkt data translate does it anew"
            )
        elif line.target != corpus.document_language:
            node.fault(
                f"translates into {line.target!r}, but the documents are in "
                f"{corpus.document_language!r}"
            )
        places.setdefault(line.id, node.place)
        lines.setdefault(line.id, line)
    return lines


def _language(node: Node, key: str) -> str:
    code = node.text(key, key)
    if code is not None and code not in ISO_639_1:
        node.fault(f"{key} {code!r} is no code of ISO 639-1")
    return code or ""


def _flaw(node: Node) -> Flaw | None:
    value = node.get("flaw")
    if value is None or value.value is None:
        return None
    if value.value not in get_args(Flaw):
        value.fault(f"is {value.value!r}, expected null or one of {', '.join(get_args(Flaw))}")
        return None
    return cast("Flaw", value.value)


def _translation(node: Node, flaw: Flaw | None) -> str:
    if flaw is None:
        return node.text("translation", "translation") or ""
    member = node.member("translation")
    return member.value if member is not None and isinstance(member.value, str) else ""


def _model(node: Node) -> Mapping[str, Any]:
    model = node.member("model")
    if model is None or model.text("name", "name of the model") is None:
        return {}
    return cast("Mapping[str, Any]", model.value)


def _free_id(wanted: str, taken: set[str]) -> str:
    while wanted in taken:
        wanted += "+"
    return wanted


def _english(question: Question, line: TranslatedQuestion, id_: str) -> Question:
    return Question(
        id=id_,
        language=line.target,
        text=line.translation,
        document_id=question.document_id,
        passage_id=question.passage_id,
        answers=question.answers,
        parallel_id=question.parallel_id,
        translated_by=str(line.model["name"]),
    )
