"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl`` and judgements in ``qrels/*.tsv``.

Thakur et al., BEIR (NeurIPS 2021), and what came after it in the same form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clrelkt.corpora.languages import ISO_639_1, languages_of_file
from clrelkt.corpora.model import Corpus, Document, FixedSplit, Part, Passage, Question
from clrelkt.corpora.records import FaultLog, Node, read_json_lines, read_text

__all__ = ["BeirDocument", "beir_document", "is_beir", "note_beir_faults", "read_beir"]

DOCUMENTS_FILE = "corpus.jsonl"
_QUERIES_FILE = "queries.jsonl"
_PARTS: dict[str, Part] = {"train": "fit", "dev": "fit", "test": "test"}
_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class BeirDocument:
    """A line of ``corpus.jsonl``."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class _Judgement:
    """A line of ``qrels/*.tsv``: how relevant a document is to a query."""

    query: str
    document: str
    score: int
    part: Part
    file: Path
    place: str


def is_beir(folder: Path) -> bool:
    """Tell whether a folder has the form of BEIR."""
    return (folder / DOCUMENTS_FILE).is_file()


def read_beir(folder: Path, *, name: str | None = None) -> Corpus:
    """Read a BEIR folder: each document is one passage.

    A question's gold is the document that is judged most relevant, the first where several are;
    the others are no gold here. Questions judged in ``test.tsv`` are the test split, those in
    ``train.tsv`` and ``dev.tsv`` are there to train with. The language of questions is their own
    (``language`` or ``lang``, also in their metadata), else what the folder's name tells of
    (``name.de``), else English.

    Raises:
        CorpusError: the files have faults; all of them are in it.
    """
    log = FaultLog()
    corpus = _read(folder, name or folder.name, log)
    log.stop_if_any()
    return corpus


def note_beir_faults(folder: Path, log: FaultLog) -> tuple[tuple[str, str], ...]:
    """Note every fault of a BEIR folder; return language and id of each question."""
    questions = _read(folder, folder.name, log).questions
    return tuple((question.language, question.parallel_id) for question in questions)


def beir_document(node: Node) -> BeirDocument | None:
    """Return a line of ``corpus.jsonl``; None, and a fault, where it does not fit."""
    id_ = node.text("_id", "_id")
    named = node.named(f"_id {id_}") if id_ else node
    text = named.text("text", "text")
    title = named.get("title")
    if title is not None and not isinstance(title.value, str):
        title.fault("is no text; leave it out or make it text")
    if id_ is None or text is None:
        return None
    return BeirDocument(id_, title.value if title and isinstance(title.value, str) else "", text)


def _read(folder: Path, name: str, log: FaultLog) -> Corpus:
    documents: dict[str, Document] = {}
    for node in read_json_lines(folder / DOCUMENTS_FILE, log):
        line = beir_document(node)
        if line is None:
            continue
        if line.id in documents:
            node.fault(f"_id {line.id!r} stands more than once; ids must be unique")
        passage = Passage(f"{line.id}#0", line.id, line.text)
        documents[line.id] = Document(line.id, line.title, (passage,))
    queries = _queries(folder, log)
    gold: dict[str, _Judgement] = {}
    for judged in _judgements(folder, log):
        if judged.query not in queries:
            log.add(judged.file, judged.place, f"{_QUERIES_FILE} has no query {judged.query!r}")
        elif judged.document not in documents:
            message = f"{DOCUMENTS_FILE} has no document {judged.document!r}"
            log.add(judged.file, judged.place, message)
        elif judged.query not in gold or judged.score > gold[judged.query].score:
            gold[judged.query] = judged
    return Corpus(
        name=name,
        questions=tuple(
            Question(
                id=f"{queries[id_][0]}:{id_}",
                language=queries[id_][0],
                text=queries[id_][1],
                document_id=judged.document,
                passage_id=f"{judged.document}#0",
                answers=(),
                parallel_id=id_,
            )
            for id_, judged in gold.items()
        ),
        documents=tuple(documents.values()),
        fixed_split=FixedSplit(
            parts={id_: judged.part for id_, judged in gold.items()},
            remedy=f"put judgements into {folder / 'qrels'} (train.tsv, dev.tsv, test.tsv)",
        ),
    )


def _queries(folder: Path, log: FaultLog) -> dict[str, tuple[str, str]]:
    """Return the language and the text of each query."""
    default = languages_of_file(folder / f"{folder.name}.jsonl").question
    found: dict[str, tuple[str, str]] = {}
    for node in read_json_lines(folder / _QUERIES_FILE, log):
        id_ = node.text("_id", "_id")
        named = node.named(f"_id {id_}") if id_ else node
        text = named.text("text", "text")
        if id_ is None or text is None:
            continue
        if id_ in found:
            named.fault(f"_id {id_!r} stands more than once; ids must be unique")
        found[id_] = (_language(named, default), text)
    return found


def _language(node: Node, default: str) -> str:
    for place in (node, node.get("metadata")):
        for key in ("language", "lang"):
            tag = None if place is None else place.get(key)
            if tag is None:
                continue
            if tag.value in ISO_639_1:
                return str(tag.value)
            tag.fault(f"{tag.value!r} is no code of ISO 639-1, such as de")
    return default


def _judgements(folder: Path, log: FaultLog) -> Iterator[_Judgement]:
    paths = [(folder / "qrels" / f"{kind}.tsv", part) for kind, part in _PARTS.items()]
    if not any(path.is_file() for path, _ in paths):
        log.add(folder / "qrels", "", "has none of train.tsv, dev.tsv and test.tsv")
    for path, part in paths:
        text = read_text(path, log) if path.is_file() else None
        for number, line in enumerate((text or "").splitlines(), start=1):
            fields = line.split("\t")
            if not line.strip() or (number == 1 and fields[-1].strip() == "score"):
                continue
            place = f"line {number}"
            if len(fields) != _COLUMNS or not _is_whole(fields[2]):
                message = "expected a query's id, a document's id and a whole number, with tabs"
                log.add(path, place, f"{line[:80]!r}: {message} between them")
            elif int(fields[2]) > 0:
                yield _Judgement(fields[0], fields[1], int(fields[2]), part, path, place)


def _is_whole(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()
