"""Finding every fault of a file or a folder, without ever stopping at one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clrelkt.corpora.beir import is_beir, note_beir_faults
from clrelkt.corpora.loading import load_corpus
from clrelkt.corpora.mlqa import is_mlqa, mlqa_files, note_mlqa_faults
from clrelkt.corpora.paper_tables import is_paper_tables, note_paper_table_faults
from clrelkt.corpora.parallel import note_parallel_faults, parallel_files
from clrelkt.corpora.records import FaultLog
from clrelkt.corpora.squad import SquadFile, parse_squad
from clrelkt.corpora.translations import (
    is_translations_file,
    note_translation_faults,
    read_translations,
    translations_beside,
)
from clrelkt.corpora.xorqa import is_xor, note_xor_faults, read_xor_lines, xor_files
from clrelkt.errors import ClrelktError, Fault

__all__ = ["Inspection", "check_path", "inspect_path"]

_Asked = tuple[str, str]
"""Language and id of a question."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look at a file or a folder has found.

    ``questions`` maps each language to its number of distinct question ids.
    """

    faults: tuple[Fault, ...]
    questions: Mapping[str, int]


def check_path(path: Path) -> list[Fault]:
    """Return every fault of a file, or of all JSON files in a folder and below it."""
    return list(inspect_path(path).faults)


def inspect_path(path: Path) -> Inspection:
    """Read a file, or all JSON files in a folder and below it, and note every fault.

    Files that belong together (a parallel set, MLQA's, XOR-TyDi's) are compared too; a parallel
    set must have every question in every language, and translations must fit their corpus.
    """
    log = FaultLog()
    asked = _check_folder(path, log) if path.is_dir() else _check_file(path, log)
    counts = Counter(language for language, _ in dict.fromkeys(asked))
    return Inspection(log.faults, dict(sorted(counts.items())))


def _check_folder(path: Path, log: FaultLog) -> list[_Asked]:
    folders = [path, *sorted(child for child in path.rglob("*") if child.is_dir())]
    asked: list[_Asked] = []
    found = is_paper_tables(path)
    if found:
        asked += note_paper_table_faults(path, log)
    for folder in folders:
        files = [file for pattern in ("*.json", "*.jsonl") for file in sorted(folder.glob(pattern))]
        if files:
            found = True
            asked += _check_siblings(folder, files, log)
    if not found:
        log.add(path, "", "has no .json or .jsonl file")
    return asked


def _check_siblings(folder: Path, files: list[Path], log: FaultLog) -> list[_Asked]:
    rest = list(files)
    asked: list[_Asked] = []
    if is_xor(folder):
        known = xor_files(folder)
        asked += note_xor_faults(folder, log)
        rest = [file for file in rest if file not in (*known.questions.values(),)]
        rest = [file for file in rest if file not in (*known.gold.values(),)]
    if is_beir(folder):
        asked += note_beir_faults(folder, log)
        rest = [file for file in rest if file.name not in ("corpus.jsonl", "queries.jsonl")]
    if is_mlqa(folder):
        for kind in ("dev", "test"):
            group = [path for path in mlqa_files(folder, kind) if path in rest]
            parsed = _parse_all(group, log)
            note_mlqa_faults(parsed, log)
            asked += _asked(parsed)
            rest = [file for file in rest if file not in group]
    parallel = [file for file in parallel_files(folder) if file in rest]
    parsed = _parse_all(parallel, log)
    if len(parallel) > 1:
        note_parallel_faults(parsed, log, complete=True)
    asked += _asked(parsed)
    for file in rest:
        if is_translations_file(file):
            _check_translations(file, log)  # Its questions are counted where they are asked.
        elif file not in parallel:
            asked += _check_file(file, log)
    return asked


def _check_file(path: Path, log: FaultLog) -> list[_Asked]:
    if not path.is_file():
        log.add(path, "", "is no file" if path.exists() else "does not exist")
        return []
    if is_translations_file(path):
        return _check_translations(path, log)
    if path.suffix == ".jsonl":
        return [(question.language, question.id) for question in read_xor_lines(path, log)]
    if path.suffix == ".json":
        return _asked(_parse_all([path], log))
    log.add(path, "", "is of no known form; expected .json or .jsonl")
    return []


def _check_translations(path: Path, log: FaultLog) -> list[_Asked]:
    beside = (path.parent, *path.parent.glob("*.json"))
    source = next((found for found in beside if translations_beside(found) == path), None)
    try:
        corpus = None if source is None else load_corpus(source, translations=False)
    except ClrelktError:
        corpus = None  # Its own faults are noted where its files are read.
    if corpus is None:
        return [(line.language, line.id) for _, line in read_translations(path, log)]
    return [(line.language, line.id) for line in note_translation_faults(corpus, path, log)]


def _parse_all(paths: list[Path], log: FaultLog) -> list[SquadFile]:
    return [file for path in paths if (file := parse_squad(path, log)) is not None]


def _asked(files: list[SquadFile]) -> list[_Asked]:
    return [(file.languages.question, entry.id) for file in files for _, _, entry in file.entries()]
