"""BM25 with ICU's words against bm25s with its own, where question and passage share a language.

XQuAD's 1,190 questions among its 240 passages, both in the same language; the share of questions
whose passage ranks first. The peer is bm25s.tokenize and bm25s.BM25 as they come.

    python bench/bm25_languages.py --row row.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from clrelkt.corpora import Corpus, load_corpus
from clrelkt.mining import BM25Index
from clrelkt.text import IcuWords
from rows import Row, write_rows


def texts_in(corpus: Corpus, language: str) -> tuple[list[str], list[str], np.ndarray]:
    """Return passages, questions and each question's passage, in one language."""
    passages = [passage for document in corpus.documents for passage in document.passages]
    translated = corpus.passage_translations[language]
    place = {passage.id: number for number, passage in enumerate(passages)}
    asked = corpus.questions_in(language)
    gold = np.array([place[question.passage_id or ""] for question in asked])
    return [translated[p.id] for p in passages], [question.text for question in asked], gold


def ours(passages: list[str], questions: list[str], gold: np.ndarray) -> float:
    index = BM25Index([str(n) for n in range(len(passages))], passages, IcuWords())
    return float((index.rank(questions, 1).places[:, 0] == gold).mean())


def peer(passages: list[str], questions: list[str], gold: np.ndarray) -> float:
    import bm25s

    index = bm25s.BM25()
    index.index(bm25s.tokenize(passages, show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(questions, show_progress=False)
    places, scores = index.retrieve(tokens, k=1, show_progress=False)
    # A question without a known word gets an arbitrary passage at score 0: no hit.
    return float(((places[:, 0] == gold) & (scores[:, 0] > 0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--languages", nargs="+", default=["zh", "th"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--row", type=Path, metavar="FILE", help="write the row: the lowest ratio")
    arguments = parser.parse_args()
    corpus = load_corpus("xquad")
    found = {}
    for language in arguments.languages:
        given = texts_in(corpus, language)
        found[language] = (ours(*given), peer(*given))
    ratios = {language: mine / theirs for language, (mine, theirs) in found.items()}
    worst = min(ratios, key=lambda language: ratios[language])
    row = Row(
        f"BM25 mining, hit rate@1 on XQuAD, {' and '.join(found)}: the lower, {worst}",
        "bm25s default tokeniser",
        1.2,
        ratios[worst],
        (min(ratios.values()), max(ratios.values())),
        found[worst][0],
        found[worst][1],
        "hit rate@1",
        None,
    )
    if arguments.json:
        print(json.dumps(asdict(row) | {"languages": found}))
    else:
        for language, (mine, theirs) in found.items():
            print(f"{language}: {mine:.4f} against {theirs:.4f}, ratio {ratios[language]:.3f}")
    if arguments.row:
        write_rows(arguments.row, [row])


if __name__ == "__main__":
    main()
