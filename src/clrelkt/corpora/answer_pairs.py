"""Questions with the text that answers each: nothing to search in, but plenty to train on.

Read from a SQuAD-form JSON file, or from two files of equally many lines, ``NAME.question`` and
``NAME.context`` or ``NAME-questions.txt`` and ``NAME-sentences.txt``, whose texts may be tokenised
(a space before each punctuation mark).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clrelkt.corpora.folders import find_data
from clrelkt.corpora.records import FaultLog, read_text
from clrelkt.corpora.squad import read_squad
from clrelkt.errors import DataError

__all__ = ["AnswerPairs", "read_answer_pairs"]

_FILES = ((".question", ".context"), ("-questions.txt", "-sentences.txt"))
"""How the names of two files that belong together end."""
_BEFORE = re.compile(r" (?=[.,;:?!)\]}%]|'s\b|n't\b)")
_AFTER = re.compile(r"(?<=[(\[{$]) ")
_QUOTED = re.compile(r'" ([^"]*?) "')


@dataclass(frozen=True, slots=True)
class AnswerPairs:
    """``questions[i]`` is answered in ``passages[i]``; many questions may share a passage."""

    questions: tuple[str, ...]
    passages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.questions)


def read_answer_pairs(name_or_path: str | Path) -> AnswerPairs:
    """Read pairs from a file, a folder, or a folder of the data's that has that name.

    ``FOLDER/NAME`` means the two files of that NAME alone.

    Raises:
        DataError: there is no such file or folder, or nothing in it that can be read.
        CorpusError: a file has faults.
    """
    path = Path(name_or_path)
    if path.is_file():
        return _read_json(path)
    folder = _folder(path)
    if folder is not None:
        return _read_folder(folder, "*")
    parent = _folder(path.parent) if path.parent != Path() else None
    if parent is None:
        raise DataError(
            f"{name_or_path}: no such file or folder, nor one of that name in CLRELKT_DATA"
        )
    return _read_folder(parent, path.name)


def _folder(path: Path) -> Path | None:
    return path if path.is_dir() else find_data(str(path))


def _read_folder(folder: Path, name: str) -> AnswerPairs:
    files = [
        (file, file.with_name(file.name.removesuffix(question) + context))
        for question, context in _FILES
        for file in sorted(folder.glob(f"{name}{question}"))
    ]
    if not files:
        shown = "NAME" if name == "*" else name
        names = " or ".join(f"{shown}{one} with {shown}{other}" for one, other in _FILES)
        missing = "" if name == "*" else f"no such file or folder as {name!r}, and "
        raise DataError(f"{folder}: {missing}no files such as {names}")
    return _joined([_read_lines(*pair) for pair in files])


def _read_json(path: Path) -> AnswerPairs:
    corpus = read_squad(path)
    passages = corpus.passage_by_id
    return AnswerPairs(
        tuple(question.text for question in corpus.questions),
        tuple(passages[str(question.passage_id)].text for question in corpus.questions),
    )


def _read_lines(questions: Path, contexts: Path) -> AnswerPairs:
    log = FaultLog()
    columns = [_lines(path, log) for path in (questions, contexts)]
    if not log.faults and len(columns[0]) != len(columns[1]):
        message = f"has {len(columns[1])} lines, {questions.name} has {len(columns[0])}"
        log.add(contexts, "", message)
    log.stop_if_any()
    return AnswerPairs(tuple(map(_plain, columns[0])), tuple(map(_plain, columns[1])))


def _lines(path: Path, log: FaultLog) -> list[str]:
    text = read_text(path, log)
    if text is None:
        return []
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            log.add(path, f"line {number}", "is empty; each line must hold a text")
    return lines


def _plain(text: str) -> str:
    """Undo the tokenisation of a text: no spaces before punctuation or inside brackets."""
    quoted = text.replace("``", '"').replace("''", '"')
    closed = _AFTER.sub("", _BEFORE.sub("", " ".join(quoted.split())))
    return _QUOTED.sub(r'"\1"', closed)


def _joined(parts: Sequence[AnswerPairs]) -> AnswerPairs:
    return AnswerPairs(
        tuple(question for part in parts for question in part.questions),
        tuple(passage for part in parts for passage in part.passages),
    )
