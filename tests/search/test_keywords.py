"""BM25 over segments against bm25s over everything, and how rankings are joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clrelkt.corpora import Corpus, split_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.mining.bm25 import BM25Index
from clrelkt.search import Index
from clrelkt.search.generations import IndexFolder
from clrelkt.search.keywords import KeywordHits, KeywordSearch, fused
from clrelkt.search.snapshot import Snapshot
from clrelkt.text import IcuWords


def test_bm25_over_segments_is_that_of_bm25s(xquad: Corpus, xquad_folder: Path) -> None:
    passages = xquad.passage_by_id
    reference = BM25Index(list(passages), [p.text for p in passages.values()], IcuWords())
    snapshot = Snapshot.open(IndexFolder(xquad_folder))
    assert len(snapshot.segments) > 2
    search = KeywordSearch(snapshot.segments)
    for question in xquad.questions_in("en")[::60]:
        (expected,) = reference.search([question.text], 20)
        (found,) = search.search([question.text], 20)
        assert len(found.rows) == len(expected)
        np.testing.assert_allclose(found.scores, [hit.score for hit in expected], rtol=1e-4)
        ids = [list(passages)[row] for row in found.rows.tolist()]
        assert ids[0] == expected[0].id
    snapshot.close()


def test_coverage_is_the_weight_of_the_words_that_a_passage_has(xquad_folder: Path) -> None:
    snapshot = Snapshot.open(IndexFolder(xquad_folder))
    search = KeywordSearch(snapshot.segments)
    whole = search.search(["Panthers defense interceptions"], 5)[0]
    half = search.search(["Panthers defense qwertzuiop"], 5)[0]
    assert whole.coverage[0] == pytest.approx(1)
    assert 0 < half.coverage[0] < 0.8
    assert len(search.search(["qwertzuiop"], 5)[0].rows) == 0
    assert len(search.search(["?!"], 5)[0].rows) == 0
    snapshot.close()


def test_reciprocal_ranks_are_weighed_by_coverage() -> None:
    hits = KeywordHits(np.array([7, 3]), np.array([9.0, 5.0]), np.array([0.5, 1.0]))
    joined = dict(fused(np.array([3, 5]), hits))
    scale = 61 / 2
    assert joined == pytest.approx(
        {3: scale * (1 / 61 + 1 / 62), 5: scale / 62, 7: scale * 0.5 / 61}
    )
    perfect = KeywordHits(np.array([1]), np.array([9.0]), np.array([1.0]))
    [(number, score)] = fused(np.array([1]), perfect)
    assert number == 1
    assert score == pytest.approx(1.0)


def test_a_hybrid_search_is_worse_in_no_language_and_better_in_all(
    muse: MuseEncoder, xquad: Corpus, xquad_folder: Path
) -> None:
    dev = split_corpus(xquad, seed=0).dev
    all_right = {False: 0, True: 0}
    with Index.open(xquad_folder, muse) as index:
        for language in ("en", "de", "tr", "el"):
            asked = dev.questions_in(language)
            vectors = index.encode_questions([question.text for question in asked])
            right = {}
            for hybrid in (False, True):
                found = index.search_batch(
                    [question.text for question in asked],
                    1,
                    vectors=vectors,
                    hybrid=hybrid,
                    highlights=False,
                )
                right[hybrid] = sum(
                    hits[0].passage_id == question.passage_id
                    for hits, question in zip(found, asked, strict=True)
                )
            assert right[True] >= right[False], language
            all_right = {hybrid: all_right[hybrid] + count for hybrid, count in right.items()}
    assert all_right[True] > 1.05 * all_right[False]
