from __future__ import annotations

import pytest

from clrelkt.corpora.model import Corpus
from clrelkt.errors import DataError
from clrelkt.mining import CandidateSet, Triplets
from clrelkt.mining.texts import distinct
from clrelkt.mining.triplets import pools_of


def test_documents_as_candidates_are_their_passages_joined(corpus: Corpus) -> None:
    candidates = CandidateSet.of(corpus.documents[:2], "document")
    assert candidates.ids == candidates.document_ids == ("bees", "bears")
    assert candidates.texts[1] == "bears eat honey and fish bears sleep in winter"


def test_passages_know_their_documents(corpus: Corpus) -> None:
    candidates = CandidateSet.of(corpus.documents[:2], "passage")
    assert candidates.ids == ("bees#0", "bees#1", "bears#0", "bears#1")
    assert candidates.document_ids == ("bees", "bees", "bears", "bears")
    assert candidates.gold_position(corpus.questions[1], "passage") == 3


def test_a_gold_outside_the_candidates_is_an_error(corpus: Corpus) -> None:
    candidates = CandidateSet.of(corpus.documents[:1], "document")
    with pytest.raises(DataError, match=r"'de:1': its gold document 'bears'.*language 'de'"):
        candidates.gold_position(corpus.questions[3], "document")


def test_languages_with_the_same_pool_share_it(corpus: Corpus) -> None:
    pools = pools_of(corpus, ["en", "de", "ru", "de"])
    assert [(len(pool), sorted(codes)) for pool, codes in pools] == [(4, ["en", "ru"]), (3, ["de"])]


def test_triplets_from_rows() -> None:
    triplets = Triplets.from_rows([("q", "p", "n"), ("q", "p", "m")], "document", {"a": 0, "b": 2})
    assert triplets.question_ids == ("q", "q")
    assert triplets.negative_ids == ("n", "m")
    assert dict(triplets.left_out) == {"b": 2}
    assert len(Triplets.from_rows([], "passage", {})) == 0


def test_distinct_texts_keep_their_first_order() -> None:
    texts, rows = distinct(["b", "a", "b", "c", "a"])
    assert texts == ("b", "a", "c")
    assert rows.tolist() == [0, 1, 0, 2, 1]
