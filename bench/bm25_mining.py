"""BM25 mining against rank_bm25, from the same words to the same negatives.

Both sides get the words of all texts and questions, index them, and choose for each question the
best ranked passages from rank 2 on that are neither its answer nor a part of its document. The
peer is rank_bm25's BM25Okapi with NumPy's partial sort; where there are many questions it is timed
on some of them and that part multiplied up, its index is always built in full. Texts are SQuAD-like
passages of the corpora that are here, and beyond those made from their words, drawn by frequency.

    python bench/bm25_mining.py --row row.json
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clrelkt.corpora import load_corpus
from clrelkt.mining import BM25Miner, BM25Mining
from clrelkt.text import IcuWords
from rows import Row, write_rows

SETTINGS = BM25Mining(per_question=3, first_rank=2)


@dataclass(frozen=True, slots=True)
class Words:
    """A tokeniser that knows the words of each text already."""

    known: dict[str, list[str]]

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the words of each text."""
        return [self.known[text] for text in texts]


@dataclass(frozen=True, slots=True)
class Work:
    """Passages, what document each belongs to, questions and their answers."""

    passages: list[str]
    document: np.ndarray
    questions: list[str]
    gold: np.ndarray
    words: Words


def real_work() -> Work:
    """Return XQuAD's and MLQA's English passages and questions."""
    passages: dict[str, str] = {}
    asked: list[tuple[str, str]] = []
    for name in ("xquad", "mlqa"):
        corpus = load_corpus(name)
        for document in corpus.documents:
            passages |= {p.text: f"{name} {document.id}" for p in document.passages}
        texts = {p.id: p.text for d in corpus.documents for p in d.passages}
        asked += [(q.text, texts[q.passage_id or ""]) for q in corpus.questions_in("en")]
    place = {text: number for number, text in enumerate(passages)}
    names = {name: number for number, name in enumerate(dict.fromkeys(passages.values()))}
    everything = [*passages, *(question for question, _ in asked)]
    words = dict(zip(everything, IcuWords().words(everything), strict=True))
    return Work(
        list(passages),
        np.array([names[name] for name in passages.values()]),
        [question for question, _ in asked],
        np.array([place[gold] for _, gold in asked]),
        Words(words),
    )


def made_work(real: Work, count: int, asked: int, seed: int = 0) -> Work:
    """Return passages of words drawn as often as in the real ones, each a document of its own.

    A question is some words of its passage.
    """
    rng = np.random.default_rng(seed)
    frequency = Counter(word for text in real.passages for word in real.words.known[text])
    vocabulary = list(frequency)
    share = np.array([frequency[word] for word in vocabulary], float)
    lengths = rng.choice([len(real.words.known[text]) for text in real.passages], count)
    drawn = rng.choice(len(vocabulary), int(lengths.sum()), p=share / share.sum())
    words: dict[str, list[str]] = {}
    for number, places in enumerate(np.split(drawn, lengths.cumsum()[:-1])):
        words[f"p{number}"] = [vocabulary[place] for place in places.tolist()]
    gold = rng.integers(0, count, asked)
    sizes = [len(real.words.known[text]) for text in real.questions]
    for number in range(asked):
        own = words[f"p{gold[number]}"]
        words[f"q{number}"] = [own[p] for p in rng.integers(0, len(own), rng.choice(sizes))]
    passages = [f"p{number}" for number in range(count)]
    questions = [f"q{number}" for number in range(asked)]
    return Work(passages, np.arange(count), questions, gold, Words(words))


def ours(work: Work) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    miner = BM25Miner(work.passages, work.document, SETTINGS, work.words)
    found = miner.mine(work.questions, work.gold)
    return time.perf_counter() - start, found


def peer(work: Work, sample: Sequence[int]) -> tuple[float, float, dict[int, list[int]]]:
    """Return the seconds of the index, those of a question, and what was chosen."""
    from rank_bm25 import BM25Okapi

    start = time.perf_counter()
    index = BM25Okapi(work.words.words(work.passages))
    indexed = time.perf_counter()
    sizes = np.bincount(work.document)
    found = {}
    for number in sample:
        scores = index.get_scores(work.words.known[work.questions[number]])
        gold = work.gold[number]
        depth = SETTINGS.first_rank - 1 + SETTINGS.per_question + int(sizes[work.document[gold]])
        depth = min(depth, len(scores))
        best = np.argpartition(-scores, depth - 1)[:depth]
        best = best[np.argsort(-scores[best], kind="stable")][SETTINGS.first_rank - 1 :]
        allowed = best[work.document[best] != work.document[gold]]
        found[number] = allowed[: SETTINGS.per_question].tolist()
    return indexed - start, (time.perf_counter() - indexed) / len(sample), found


def compare(name: str, work: Work, sampled: int, rounds: int) -> dict[str, Any]:
    """Measure both sides in turn."""
    sample = sorted(random.Random(0).sample(range(len(work.questions)), sampled))
    mine: list[float] = []
    theirs: list[float] = []
    parts = []
    for _ in range(rounds):
        seconds, found = ours(work)
        index, question, peers = peer(work, sample)
        mine.append(seconds)
        theirs.append(index + question * len(work.questions))
        parts.append((index, question))
    common = [len(set(peers[n]) & set(found[n].tolist())) / max(1, len(peers[n])) for n in sample]
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    return {
        "work": name,
        "passages": len(work.passages),
        "questions": len(work.questions),
        "peer_timed_on": sampled,
        "ours": mine,
        "theirs": theirs,
        "peer_index_and_question": parts[0],
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "negatives_in_common": sum(common) / len(common),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def grown(real: Work, size: int) -> dict[str, Any]:
    """Measure ours alone: the index, and 1,000 questions."""
    work = made_work(real, size, 1_000)
    start = time.perf_counter()
    miner = BM25Miner(work.passages, work.document, SETTINGS, work.words)
    indexed = time.perf_counter()
    miner.mine(work.questions, work.gold)
    return {
        "passages": size,
        "index_seconds": indexed - start,
        "seconds_of_1000_questions": time.perf_counter() - indexed,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def warm_up(work: Work) -> float:
    """Return the seconds that compiling takes, once a process."""
    from clrelkt.mining import ranking

    miner = BM25Miner(work.passages[:50], work.document[:50], SETTINGS, work.words)
    before = ranking._POSTINGS_WORTH_COMPILING
    ranking._POSTINGS_WORTH_COMPILING = -1
    try:
        start = time.perf_counter()
        miner.mine(work.questions[:50], np.zeros(50, np.int64))
        return time.perf_counter() - start
    finally:
        ranking._POSTINGS_WORTH_COMPILING = before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=200, help="questions that time the peer")
    parser.add_argument(
        "--growth", type=int, nargs="*", default=[], help="sizes to measure ours alone at"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--row", type=Path, metavar="FILE", help="write the row of the last size")
    arguments = parser.parse_args()
    real = real_work()
    compiling = warm_up(real)
    found = [
        compare("real passages", real, min(arguments.sample, len(real.questions)), arguments.rounds)
    ]
    for size in arguments.sizes:
        work = made_work(real, size, size)
        rounds = arguments.rounds if size <= 10_000 else 2
        sampled = max(5, min(arguments.sample, 2_000_000 // size))
        found.append(compare("made passages", work, sampled, rounds))
    growth = [grown(real, size) for size in arguments.growth]
    for one in found if not arguments.json else ():
        low, high = one["spread"]
        print(
            f"{one['work']}, {one['questions']:,} questions, {one['passages']:,} passages: "
            f"{one['ratio']:.0f} times ({low:.0f} to {high:.0f}), "
            f"ours {statistics.median(one['ours']):.3g} s, "
            f"theirs {statistics.median(one['theirs']):.4g} s; "
            f"{one['negatives_in_common']:.0%} of the negatives in common"
        )
    if arguments.json:
        record = {"compiling": compiling, "comparisons": found, "growth": growth}
        json.dump(record, sys.stdout, indent=1)
    else:
        for step in growth:
            print(json.dumps(step))
        print(f"compiling, once a process: {compiling:.2f} s, not in the figures")
    last = found[-1]
    row = Row(
        f"BM25 mining, {last['questions']:,} questions, {last['passages']:,} passages",
        "rank_bm25 BM25Okapi, the same words",
        100.0,
        last["ratio"],
        (last["spread"][0], last["spread"][1]),
        statistics.median(last["ours"]),
        statistics.median(last["theirs"]),
        "s",
        last["peak_memory"],
    )
    if arguments.row:
        write_rows(arguments.row, [row])


if __name__ == "__main__":
    main()
