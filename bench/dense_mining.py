"""Dense mining against a loop over the questions.

The peer is the loop that the paper's released scripts are described with: it encodes one text at
a time, and for each question it copies the table of documents, computes a distance a row and sorts
the rows in Python. Encoder, questions and documents are the same on both sides.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clrelkt.corpora import Corpus, Question
from clrelkt.encoders import MuseEncoder
from clrelkt.mining import DenseMiner, DenseMining
from harness import (
    Comparison,
    DisagreementError,
    Options,
    Report,
    compare,
    foreign_languages,
    main,
    read_encoder,
    read_questions,
    timed,
)

SETTINGS = DenseMining(hard=1, semi_hard=1, margin=0.24)
Table = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class LoopTimes:
    """Seconds: all documents' encoding, and a question's encoding and choice in the mean."""

    documents: float
    encoding: float
    choosing: float


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ids of the hard and the semi-hard documents of a question."""

    hard: frozenset[str]
    semi_hard: frozenset[str]


def encode_table(encoder: MuseEncoder, corpus: Corpus) -> Table:
    return [
        {"id": document.id, "text": document.text, "vector": encoder.encode([document.text])[0]}
        for document in corpus.documents
    ]


def candidates_in_order(anchor: np.ndarray, gold: str, table: Table) -> tuple[list[str], list[str]]:
    """Return hard and semi-hard document ids, nearest first."""
    rows = copy.deepcopy(table)
    for row in rows:
        row["distance"] = 1.0 - float(np.dot(anchor, row["vector"]))
    rows.sort(key=lambda row: row["distance"])
    positive = next(row["distance"] for row in rows if row["id"] == gold)
    others = [(row["id"], row["distance"]) for row in rows if row["id"] != gold]
    hard = [id_ for id_, distance in others if distance < positive]
    semi_hard = [id_ for id_, d in others if positive < d < positive + SETTINGS.margin]
    return hard, semi_hard


def run_loop(
    encoder: MuseEncoder, asked: Sequence[Question], corpus: Corpus
) -> tuple[LoopTimes, dict[str, Candidates]]:
    """Mine ``asked`` one by one; return the times and what was there to choose from."""
    rng = random.Random(0)
    start = time.perf_counter()
    table = encode_table(encoder, corpus)
    documents = time.perf_counter() - start
    encoding = choosing = 0.0
    found: dict[str, Candidates] = {}
    for question in asked:
        start = time.perf_counter()
        anchor = encoder.encode([question.text], "question")[0]
        encoded = time.perf_counter()
        hard, semi_hard = candidates_in_order(anchor, question.document_id or "", table)
        for kind, quota in ((hard, SETTINGS.hard), (semi_hard, SETTINGS.semi_hard)):
            rng.sample(kind, min(quota, len(kind)))
        choosing += time.perf_counter() - encoded
        encoding += encoded - start
        found[question.id] = Candidates(frozenset(hard), frozenset(semi_hard))
    return LoopTimes(documents, encoding / len(asked), choosing / len(asked)), found


def our_candidates(
    encoder: MuseEncoder, asked: Sequence[Question], corpus: Corpus
) -> dict[str, Candidates]:
    """Return everything that ``DenseMiner`` chooses from."""
    everything = len(corpus.documents)
    hard_only, both = (
        DenseMiner(asked, corpus, DenseMining(everything, semi_hard, SETTINGS.margin))(encoder, 0)
        for semi_hard in (0, everything)
    )
    hard: dict[str, set[str]] = {question.id: set() for question in asked}
    for question, negative in zip(hard_only.question_ids, hard_only.negative_ids, strict=True):
        hard[question].add(negative)
    mined: dict[str, set[str]] = {question.id: set() for question in asked}
    for question, negative in zip(both.question_ids, both.negative_ids, strict=True):
        mined[question].add(negative)
    return {
        id_: Candidates(frozenset(hard[id_]), frozenset(mined[id_] - hard[id_])) for id_ in mined
    }


def check_same(encoder: MuseEncoder, asked: Sequence[Question], corpus: Corpus) -> None:
    ours = our_candidates(encoder, asked, corpus)
    _, loops = run_loop(encoder, asked, corpus)
    different = [id_ for id_ in loops if ours[id_] != loops[id_]]
    if different:
        raise DisagreementError(
            f"{len(different)} of {len(asked)} questions have other candidates in the loop, the "
            f"first is {different[0]!r}: {loops[different[0]]} there, {ours[different[0]]} here"
        )


def measure(options: Options) -> Report:
    """Run the benchmark."""
    corpus = read_questions(options)
    questions = corpus.in_languages(foreign_languages(corpus)).questions
    encoder = read_encoder(options)
    miner = DenseMiner(questions, corpus, SETTINGS)
    sample = random.Random(0).sample(questions, 20 if options.quick else 100)
    check_same(encoder, sample, corpus)
    vectors = {
        texts: encoder.encode(texts) for texts in (miner.question_texts, miner.candidate_texts)
    }
    our_choosing: list[float] = []
    times: list[LoopTimes] = []

    def ours() -> float:
        our_choosing.append(
            timed(lambda: miner(encoder, 0, lambda texts, kind: vectors[tuple(texts)]))
        )
        return timed(lambda: miner(encoder, 0))

    def loop() -> float:
        times.append(run_loop(encoder, sample, corpus)[0])
        return times[-1].documents + len(questions) * (times[-1].encoding + times[-1].choosing)

    whole = compare(
        "dense mining, encoding included",
        ours,
        loop,
        rounds=2 if options.quick else 3,
        target=100.0,
    )
    chosen = Comparison(
        "dense mining, vectors at hand",
        tuple(our_choosing),
        tuple(len(questions) * item.choosing for item in times),
    )
    notes: dict[str, str | float] = {
        "questions, documents": f"{len(questions)}, {len(corpus.documents)}",
        "the loop": f"timed on {len(sample)} random questions and all documents, the questions' "
        "part multiplied up; hard and semi-hard candidates of the sample equal ours",
        "of a question in the loop": f"{1e3 * times[0].encoding:.2f} ms encoding, "
        f"{1e3 * times[0].choosing:.2f} ms choosing",
        "device": torch.device(options.device).type,
    }
    return Report("dense_mining", (whole, chosen), notes)


if __name__ == "__main__":
    main(__doc__, measure)
