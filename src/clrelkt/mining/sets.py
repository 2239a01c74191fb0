"""What is mined at scale: questions, what answers them, and what may be their negatives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clrelkt.corpora.model import Corpus, Question
from clrelkt.corpora.records import FaultLog, Node, read_json_lines
from clrelkt.errors import DataError
from clrelkt.mining.texts import distinct
from clrelkt.mining.triplets import CandidateSet, Granularity, pools_of

__all__ = ["MiningSet", "read_mining_set", "sets_of_corpus"]


@dataclass(frozen=True)
class MiningSet:
    """Questions with their answers among candidates.

    A row is a question with one of its answers: ``question_ids`` and ``question_texts`` (rows),
    ``golds`` (rows, most) int64 the numbers of all its answers among the candidates, that of the
    row first, one repeated where there are fewer. ``candidate_ids`` and ``candidate_texts`` run in
    parallel with ``document`` (candidates,), int64: a candidate of an answer's document is no
    negative. ``queries`` (rows) is what BM25 asks, where it is not the questions' own texts.
    ``name`` tells several sets apart.
    """

    question_ids: tuple[str, ...]
    question_texts: tuple[str, ...]
    golds: np.ndarray
    candidate_ids: tuple[str, ...]
    candidate_texts: tuple[str, ...]
    document: np.ndarray
    queries: tuple[str, ...] = ()
    name: str = ""

    def __len__(self) -> int:
        return len(self.question_ids)

    def digest(self) -> str:
        """Return a checksum of everything that mining reads, hexadecimal."""
        found = hashlib.sha256()
        for texts in (
            self.question_ids,
            self.question_texts,
            self.candidate_ids,
            self.candidate_texts,
            self.queries,
        ):
            for text in texts:
                data = text.encode()
                found.update(len(data).to_bytes(8, "little") + data)
            found.update(len(texts).to_bytes(8, "little"))
        for numbers in (self.golds, self.document):
            found.update(repr(numbers.shape).encode() + np.ascontiguousarray(numbers).tobytes())
        return found.hexdigest()


def sets_of_corpus(
    corpus: Corpus,
    granularity: Granularity,
    *,
    asked: Sequence[Question] | None = None,
    in_document_language: bool = False,
) -> list[MiningSet]:
    """Return one set for each pool of a corpus, with all its questions or those ``asked``.

    ``in_document_language`` asks each question's translation into the documents' language, as
    BM25 needs it; questions without one are left out.

    Raises:
        DataError: a question without gold, or whose gold is not in its pool; no question left.
    """
    found = []
    every = corpus.questions if asked is None else asked
    pools = pools_of(corpus, (question.language for question in every))
    for number, (pool, languages) in enumerate(pools):
        candidates = CandidateSet.of(pool, granularity)
        asked = [question for question in every if question.language in languages]
        queries: tuple[str, ...] = ()
        if in_document_language:
            pairs = [(q, text) for q in asked if (text := _query(q, corpus)) is not None]
            asked, queries = [q for q, _ in pairs], tuple(text for _, text in pairs)
        golds = [candidates.gold_position(question, granularity) for question in asked]
        found.append(
            MiningSet(
                tuple(question.id for question in asked),
                tuple(question.text for question in asked),
                np.array(golds, np.int64).reshape(-1, 1),
                candidates.ids,
                candidates.texts,
                distinct(candidates.document_ids)[1],
                queries,
                f"pool-{number}-",
            )
        )
    if not any(map(len, found)):
        raise DataError(
            f"corpus {corpus.name!r}: no question to mine for"
            + (f" in {corpus.document_language!r}" if in_document_language else "")
        )
    return [one for one in found if len(one)]


def _query(question: Question, corpus: Corpus) -> str | None:
    if question.language == corpus.document_language:
        return question.text
    translated = corpus.translation(question, corpus.document_language)
    return None if translated is None else translated.text


def read_mining_set(questions: Path, passages: Path) -> MiningSet:
    """Read questions and passages from two JSON Lines files.

    A line of ``passages`` is ``{"id", "text"}``, with ``"document"``, the id of what it is a part
    of, where passages have one. A line of ``questions`` is ``{"id", "text", "positive_ids"}``,
    the last a list of the passages that answer it; each of them makes a row.

    Raises:
        CorpusError: the files have faults, each with file and line: no JSON, an empty text, an id
            that is missing or there twice, an answer that is no passage.
    """
    log = FaultLog()
    ids, texts, documents = _read_passages(passages, log)
    place = {id_: number for number, id_ in enumerate(ids)}
    rows = _read_questions(questions, place, passages, log)
    log.stop_if_any()
    if not rows or not ids:
        raise DataError(
            f"{questions if not rows else passages}: holds no record; one a line expected"
        )
    most = max(len(golds) for _, _, golds in rows)
    return MiningSet(
        tuple(id_ for id_, _, _ in rows),
        tuple(text for _, text, _ in rows),
        np.array([golds + golds[:1] * (most - len(golds)) for _, _, golds in rows], np.int64),
        tuple(ids),
        tuple(texts),
        distinct(documents)[1],
    )


def _read_passages(file: Path, log: FaultLog) -> tuple[list[str], list[str], list[str]]:
    ids: dict[str, str] = {}
    texts: list[str] = []
    documents: list[str] = []
    for node in read_json_lines(file, log):
        id_, text = _id_and_text(node, ids, "passage")
        if id_ is None or text is None:
            continue
        ids[id_] = node.place
        texts.append(text)
        # A passage of no document is a document of its own; ids of the two kinds never meet.
        has_document = node.get("document") is not None
        document = node.text("document", "document") if has_document else None
        documents.append(f"document {document}" if has_document else f"passage {id_}")
    return list(ids), texts, documents


def _read_questions(
    file: Path, place: dict[str, int], passages: Path, log: FaultLog
) -> list[tuple[str, str, list[int]]]:
    ids: dict[str, str] = {}
    rows: list[tuple[str, str, list[int]]] = []
    for node in read_json_lines(file, log):
        id_, text = _id_and_text(node, ids, "question")
        if id_ is None or text is None:
            continue
        ids[id_] = node.place
        named = [
            answer.as_text("answer's id") for answer in node.named(id_).members("positive_ids")
        ]
        known = [answer for answer in dict.fromkeys(named) if answer is not None]
        if not known:
            node.named(id_).fault("names no answer in 'positive_ids'; leave the question out")
        for answer in known:
            if answer not in place:
                node.named(id_).fault(f"its answer {answer!r} is no passage of {passages}")
        golds = [place[answer] for answer in known if answer in place]
        for number in range(len(golds)):
            rows.append((id_, text, golds[number:] + golds[:number]))
    return rows


def _id_and_text(node: Node, ids: dict[str, str], what: str) -> tuple[str | None, str | None]:
    id_ = node.text("id", f"{what}'s id")
    if id_ is None:
        return None, None
    node = node.named(id_)
    if id_ in ids:
        node.fault(f"{what} id {id_!r} is in {ids[id_]} already; ids must differ")
        return None, None
    return id_, node.text("text", f"{what}'s text")
