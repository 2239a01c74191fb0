"""Vectors, BM25 and both joined, on XQuAD's train and dev questions in every language.

    python bench/hybrid.py --encoder muse

Hit rate@1 of the gold passage among all 240. Plain reciprocal rank fusion gives BM25's ranking the
same weight whatever the question; clrelkt weighs a passage by how much of the question it covers,
which is why a hybrid search is its default. Test questions are not looked at.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clrelkt.corpora import Question, load_corpus, split_corpus
from clrelkt.encoders import load_encoder
from clrelkt.errors import ClrelktError
from clrelkt.search import Index
from clrelkt.search.generations import IndexFolder
from clrelkt.search.keywords import KeywordSearch, fused
from clrelkt.search.snapshot import Snapshot
from clrelkt.search.stores import ExactStore

DEPTH = 100
WAYS = ("vectors", "BM25", "plain fusion", "clrelkt")


def hit_rates(
    snapshot: Snapshot, questions: Sequence[Question], vectors: np.ndarray
) -> dict[str, float]:
    """Return the share of questions whose gold passage is the first, by each way of ranking."""
    words = KeywordSearch(snapshot.segments)
    nearest = ExactStore([segment.block for segment in snapshot.segments]).search(vectors, DEPTH)
    right = dict.fromkeys(WAYS, 0)
    for question, (rows, _) in zip(questions, nearest, strict=True):
        (hits,) = words.search([question.text], DEPTH)
        plain = dataclasses.replace(hits, coverage=np.ones_like(hits.coverage))
        firsts = {
            "vectors": int(rows[0]),
            "BM25": int(hits.rows[0]) if len(hits.rows) else -1,
            "plain fusion": fused(rows, plain)[0][0],
            "clrelkt": fused(rows, hits)[0][0],
        }
        for way, row in firsts.items():
            if row >= 0:
                segment, number = snapshot.place(row)
                right[way] += segment.row(number).passage_id == question.passage_id
    return {way: count / len(questions) for way, count in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="muse")
    parser.add_argument("--corpus", default="xquad")
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        corpus = load_corpus(arguments.corpus)
        encoder = load_encoder(arguments.encoder)
        splits = split_corpus(corpus, seed=arguments.split_seed)
        rates = {}
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "index"
            Index.build(encoder, corpus.documents, place, language=corpus.document_language).close()
            snapshot = Snapshot.open(IndexFolder(place))
            for code in corpus.languages:
                asked = [*splits.train.questions_in(code), *splits.dev.questions_in(code)]
                vectors = encoder.encode([question.text for question in asked], "question")
                rates[code] = hit_rates(snapshot, asked, vectors)
            snapshot.close()
    except ClrelktError as error:
        sys.exit(f"error: {error}")
    rates["mean"] = {way: statistics.mean(row[way] for row in rates.values()) for way in WAYS}
    if arguments.json:
        print(json.dumps(rates, indent=1))
        return
    print("        " + "".join(f"{way:>14}" for way in WAYS))
    for code, row in rates.items():
        print(f"{code:<8}" + "".join(f"{row[way]:>14.3f}" for way in WAYS))


if __name__ == "__main__":
    main()
