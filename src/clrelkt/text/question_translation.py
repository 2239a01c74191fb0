"""Filling a file with translations of a corpus's questions, a batch at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from clrelkt.corpora.model import Corpus, Question
from clrelkt.corpora.records import FaultLog
from clrelkt.corpora.translations import Flaw, TranslatedQuestion, read_translations
from clrelkt.errors import DataError, SettingsError, StorageError
from clrelkt.files import storage_errors, write_text
from clrelkt.progress import progress_bar
from clrelkt.text.machine_translation import GenerationSettings

__all__ = ["TranslationReport", "Translator", "Translators", "translate_questions"]


_LINE_START = b'{"id": "'


class Translator(Protocol):
    """Translates texts of one language."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What every line says of the model: at least ``name``, ``revision`` and ``settings``."""

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, Flaw | None]]:
        """Return each text's translation, and what is wrong with it."""


class Translators(Protocol):
    """The translator of each language."""

    @property
    def settings(self) -> GenerationSettings:
        """How translations are searched for."""

    def name(self, language: str) -> str:
        """Return the name of the model for ``language``, without loading it."""

    def open(self, language: str) -> Translator:
        """Load the model for ``language``."""


@dataclass(frozen=True, slots=True)
class TranslationReport:
    """What a call has done.

    Attributes:
        path: the file.
        human: questions that need none: they have a translation by people.
        kept: lines that were there.
        repeated: lines that were added with the translation of a question of the same words.
        translated: lines that were added with a translation of their own.
        left: questions still without a line (``limit``).
        flaws: lines of the whole file that are marked, by flaw.
        languages: lines of the whole file, by language.
    """

    path: Path
    human: int
    kept: int
    repeated: int
    translated: int
    left: int
    flaws: Mapping[str, int]
    languages: Mapping[str, int]


def translate_questions(
    corpus: Corpus,
    path: Path,
    translators: Translators,
    *,
    batch: int = 32,
    languages: Iterable[str] | None = None,
    limit: int | None = None,
) -> TranslationReport:
    """Translate the questions of ``corpus`` that have no translation, into the file ``path``.

    Lines are added a batch at a time and are on disk when the next batch begins, so that a call
    that was stopped goes on with the same arguments. A text that the model has translated is not
    translated again. A line with a flaw is made anew only under other settings.

    Args:
        corpus: the corpus, without machine translations.
        path: the file; lines that it has stay.
        translators: the models.
        batch: texts translated at a time, those of like length together.
        languages: languages of the questions; None are all but the documents' own.
        limit: add at most so many lines.

    Raises:
        UnknownNameError: the corpus has no questions in one of ``languages``.
        SettingsError: one of them is the documents' own, or a number is too low.
        CorpusError: the file has faults.
        DataError: the file is of another corpus, or of another model.
        StorageError: the file cannot be written, or another process is writing it.
    """
    if batch < 1 or (limit is not None and limit < 0):
        raise SettingsError(f"batch {batch}, limit {limit}: at least 1 and 0")
    wanted = _questions(corpus, languages)
    human = [q for q in wanted if corpus.translation(q, corpus.document_language) is not None]
    spoken_for = {question.id for question in human}
    open_ = [question for question in wanted if question.id not in spoken_for]
    with _locked(path):
        lines = _kept_lines(corpus, path, translators)
        missing = [question for question in open_ if question.id not in lines]
        now = missing if limit is None else missing[:limit]
        filling = _Filling(path, lines, corpus.document_language)
        filling.fill(now, translators, batch)
    found = filling.lines.values()
    return TranslationReport(
        path=path,
        human=len(human),
        kept=len(lines),
        repeated=filling.repeated,
        translated=len(now) - filling.repeated,
        left=len(missing) - len(now),
        flaws=dict(Counter(line.flaw for line in found if line.flaw is not None)),
        languages=dict(sorted(Counter(line.language for line in found).items())),
    )


def _questions(corpus: Corpus, languages: Iterable[str] | None) -> list[Question]:
    chosen = corpus if languages is None else corpus.in_languages(languages)
    own = corpus.document_language
    if languages is not None and own in chosen.languages:
        raise SettingsError(
            f"{own!r} is the language of the documents of {corpus.name!r}; its questions need no "
            "translation"
        )
    return [question for question in chosen.questions if question.language != own]


class _Filling:
    """Appends lines to the file, each batch flushed to disk."""

    def __init__(self, path: Path, lines: Mapping[str, TranslatedQuestion], target: str) -> None:
        self.lines = dict(lines)
        self.repeated = 0
        self._path = path
        self._target = target
        self._known = {(line.language, line.text): line for line in lines.values()}

    def fill(self, questions: Sequence[Question], translators: Translators, batch: int) -> None:
        with progress_bar("translating", total=len(questions), unit="questions") as advance:
            known = [q for q in questions if (q.language, q.text) in self._known]
            if known:
                self._append(known)
            self.repeated += len(known)
            advance(len(known))
            for language, of_language in _by_language(questions, known).items():
                translator = translators.open(language)
                _check_revision(self.lines.values(), language, translator.record, self._path)
                for texts in _batches({q.text for q in of_language}, batch):
                    self._learn(texts, language, translator)
                    ready = [q for q in of_language if q.text in set(texts)]
                    self._append(ready)
                    self.repeated += len(ready) - len(texts)
                    advance(len(ready))

    def _learn(self, texts: Sequence[str], language: str, translator: Translator) -> None:
        for text, (translation, flaw) in zip(texts, translator(texts), strict=True):
            self._known[language, text] = TranslatedQuestion(
                "", language, text, self._target, translation, flaw, dict(translator.record)
            )

    def _append(self, questions: Iterable[Question]) -> None:
        added = {
            question.id: replace(self._known[question.language, question.text], id=question.id)
            for question in questions
        }
        with storage_errors(self._path), self._path.open("ab") as file:
            file.write(b"".join(map(_as_bytes, added.values())))
            file.flush()
            os.fsync(file.fileno())
        self.lines |= added


def _by_language(
    questions: Sequence[Question], but: Sequence[Question]
) -> dict[str, list[Question]]:
    left_out = {question.id for question in but}
    groups: dict[str, list[Question]] = {}
    for question in questions:
        if question.id not in left_out:
            groups.setdefault(question.language, []).append(question)
    return groups


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the texts in batches, the longest first: memory that is too small shows at once."""
    ordered = sorted(texts, key=lambda text: (-len(text), text))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _as_bytes(line: TranslatedQuestion) -> bytes:
    return (json.dumps(line.to_json(), ensure_ascii=False) + "\n").encode()


def _kept_lines(
    corpus: Corpus, path: Path, translators: Translators
) -> dict[str, TranslatedQuestion]:
    """Read the file's lines, and leave in it those that need not be made anew."""
    if not path.exists():
        return {}
    ends_well = _drop_half_line(path)
    log = FaultLog()
    found = [line for _, line in read_translations(path, log)]
    log.stop_if_any()
    questions = {question.id: question for question in corpus.questions}
    for line in found:
        _check_owner(line, questions, corpus, translators, path)
    kept = {
        line.id: line
        for line in found
        if (line.language, line.text) == (questions[line.id].language, questions[line.id].text)
        and (line.flaw is None or not _try_again(line, translators))
    }
    if len(kept) < len(found) or not ends_well:
        write_text(path, "".join(_as_bytes(line).decode() for line in kept.values()))
    return kept


def _try_again(line: TranslatedQuestion, translators: Translators) -> bool:
    recorded = line.model.get("settings")
    return not isinstance(recorded, Mapping) or translators.settings.differ_from(recorded)


def _check_owner(
    line: TranslatedQuestion,
    questions: Mapping[str, Question],
    corpus: Corpus,
    translators: Translators,
    path: Path,
) -> None:
    if line.id not in questions or line.target != corpus.document_language:
        raise DataError(
            f"{path}: holds a translation of {line.id!r} into {line.target!r}, which "
            f"{corpus.name!r} has no use for; name another file with -o"
        )
    if line.model["name"] != translators.name(line.language):
        raise DataError(
            f"{path}: {line.id!r} was translated by {line.model['name']!r}, not by "
            f"{translators.name(line.language)!r}; go on with that model, or name another file "
            "with -o"
        )


def _check_revision(
    lines: Iterable[TranslatedQuestion], language: str, record: Mapping[str, Any], path: Path
) -> None:
    for line in lines:
        if line.language == language and line.model.get("revision") != record["revision"]:
            raise DataError(
                f"{path}: {line.id!r} was translated by revision {line.model.get('revision')} of "
                f"{record['name']!r}, and this is revision {record['revision']}; name another "
                "file with -o"
            )


def _drop_half_line(path: Path) -> bool:
    """Drop what a killed process has written of its last line; return whether all lines end.

    What is not a half line of translations, after whole ones, stays for the reader to complain of.
    """
    with storage_errors(path), path.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end == len(content):
            return True
        first, last = content.split(b"\n", 1)[0], content[end:]
        ours = end == 0 or b'"translation"' in first
        if not ours or not last.startswith(_LINE_START[: len(last)]) or _is_json(last):
            return False
        file.truncate(end)
        return True


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file itself may be replaced, so the lock is on the folder that it lies in.
        folder = os.open(path.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"another process is translating into {path.parent}; wait for it, or name a file "
                "in another folder with -o"
            ) from error
        yield
    finally:
        os.close(folder)
