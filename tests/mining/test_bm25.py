from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import clrelkt.mining.ranking as ranking
import clrelkt.mining.tokens as tokens
from clrelkt.corpora.model import Corpus
from clrelkt.errors import DataError, SettingsError
from clrelkt.mining import BM25Index, BM25Miner, BM25Mining, mine_bm25
from clrelkt.text import IcuWords

WORDS = IcuWords()


def reference(texts: list[list[str]], query: list[str]) -> list[float]:
    """Lucene's BM25 with k1 1.5 and b .75, word by word."""
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in query:
            holding = sum(word in other for other in texts)
            if holding:
                weight = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
                frequency = text.count(word)
                length = 1.5 * (1 - 0.75 + 0.75 * len(text) / mean)
                score += weight * frequency / (length + frequency)
        scores.append(score)
    return scores


some_text = st.lists(st.sampled_from("abcdef"), max_size=6)


@hypothesis_settings(deadline=None)
@given(
    st.lists(some_text, min_size=1, max_size=8).filter(any),
    st.lists(st.lists(st.sampled_from("abcxyz"), max_size=4), min_size=1, max_size=3),
    st.integers(1, 10),
)
def test_search_agrees_with_the_formula(
    texts: list[list[str]], queries: list[list[str]], k: int
) -> None:
    ids = [f"text-{number}" for number in range(len(texts))]
    index = BM25Index(ids, [" ".join(text) for text in texts], WORDS)
    found = index.search([" ".join(query) for query in queries], k)
    scores = index.scores([" ".join(query) for query in queries])
    for query, hits, row in zip(queries, found, scores, strict=True):
        expected = reference(texts, query)
        assert row == pytest.approx(expected, abs=1e-5)
        order = [place for place in np.lexsort((range(len(ids)), -row)) if row[place] > 0]
        assert [hit.id for hit in hits] == [ids[place] for place in order[:k]]
        assert [hit.score for hit in hits] == pytest.approx([row[p] for p in order[:k]])


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_scores_are_those_of_bm25s_to_the_bit(seed: int) -> None:
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(seed)
    texts = [rng.integers(0, 40, rng.integers(0, 30)).tolist() for _ in range(25)]
    if not any(texts):
        return
    vocabulary = {str(word): word for word in range(40)}
    index = bm25s.BM25()
    index.index((texts, vocabulary), create_empty_token=False, show_progress=False)
    ours = ranking.Postings.of([[str(word) for word in text] for text in texts], vocabulary)
    for word in range(40):
        query = np.array([word, 3, word], np.int32)
        assert np.array_equal(ranking.total(ours, query), index.get_scores_from_ids(query))


def test_equal_scores_keep_the_order_of_the_texts() -> None:
    index = BM25Index(list("pqrs"), ["x y", "x z", "w w", "x y"], WORDS)
    assert [hit.id for hit in index.search(["x"], 2)[0]] == ["p", "q"]


def test_queries_without_known_words_and_texts_without_words_find_nothing() -> None:
    index = BM25Index(["a", "b"], ["honey", "…"], WORDS)
    assert index.search(["", "?!", "unknown"], 5) == [(), (), ()]
    assert BM25Index(["a"], ["…"], WORDS).search(["honey"], 1) == [()]
    assert BM25Index([], [], WORDS).search(["honey"], 1) == [()]


def test_k_must_be_positive() -> None:
    with pytest.raises(SettingsError, match="k is 0"):
        BM25Index(["a"], ["honey"], WORDS).search(["honey"], 0)


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_compiled_search_finds_the_same(seed: int, depth: int) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 12))) for _ in range(30)]
    queries = [" ".join(rng.choice(list("abcdxy"), rng.integers(0, 4))) for _ in range(100)]
    index = BM25Index([str(number) for number in range(30)], texts, WORDS)
    plain = index.rank(queries, depth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_POSTINGS_WORTH_COMPILING", -1)
        compiled = index.rank(queries, depth)
    assert np.array_equal(compiled.places, plain.places)
    assert np.array_equal(compiled.scores, plain.scores)


def test_words_found_in_several_processes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Bees make honey.", "", "ผึ้งทำน้ำผึ้ง", "蜜蜂酿蜜"] * 3
    alone = WORDS.words(texts)
    monkeypatch.setattr(tokens, "_CHARACTERS_WORTH_PROCESSES", 0)
    monkeypatch.setattr(tokens, "_CHARACTERS_AT_ONCE", 20)
    assert tokens.words_of(texts, WORDS) == alone


def test_several_answers_of_a_question_are_all_barred() -> None:
    texts = ["honey bees", "honey bees", "honey bears", "honey", "iron", "honey wax"]
    miner = BM25Miner(texts, np.array([0, 1, 2, 3, 4, 3]), BM25Mining(3, 1), WORDS)
    assert miner.mine(["honey"], np.array([0])).tolist() == [[3, 2, 5]]
    assert miner.mine(["honey"], np.array([[0, 3]])).tolist() == [[2, -1, -1]]
    assert miner.mine([], np.empty(0, np.int64)).shape == (0, 3)
    one = BM25Miner(["honey"], np.array([0]), BM25Mining(1, 1), WORDS)
    assert one.mine(["honey", "?"], np.array([0, 0])).tolist() == [[-1], [-1]]


def test_negatives_are_ranked_passages_of_other_documents_and_other_text(corpus: Corpus) -> None:
    mined = mine_bm25(corpus.questions_in("en")[:1], corpus, BM25Mining(3, first_rank=1), WORDS)
    # "who makes honey in hives": bees#0 is gold, bees#1 its document's, copy#0 has its text.
    ranked = [hit.id for hit in _passages(corpus).search(["who makes honey in hives"], 9)[0]]
    assert {"bees#0", "copy#0", "bees#1"} < set(ranked)
    assert list(mined.negative_ids) == [
        id_ for id_ in ranked if id_ not in {"bees#0", "bees#1", "copy#0"}
    ]
    assert set(mined.positive_ids) == {"bees#0"}
    assert set(mined.question_ids) == {"en:0"}
    assert mined.granularity == "passage"


def _passages(corpus: Corpus) -> BM25Index:
    passages = [passage for document in corpus.documents for passage in document.passages]
    return BM25Index([p.id for p in passages], [p.text for p in passages], WORDS)


def test_ranks_above_the_first_are_passed_over_even_if_not_gold(corpus: Corpus) -> None:
    asked = [q for q in corpus.questions if q.id == "en:1"]
    settings = BM25Mining(per_question=1, first_rank=1, granularity="passage")
    stolen = [replace(asked[0], text="rocks hard iron lava")]
    first = mine_bm25(stolen, corpus, settings, WORDS)
    second = mine_bm25(stolen, corpus, replace(settings, first_rank=2), WORDS)
    assert first.negative_ids == ("rocks#0",)
    assert second.negative_ids == ("rocks#1",)


def test_other_languages_ask_in_english_within_their_own_pool(corpus: Corpus) -> None:
    german = corpus.questions_in("de")
    settings = BM25Mining(per_question=5, first_rank=1)
    mined = mine_bm25(german, corpus, settings, WORDS)
    english = mine_bm25(corpus.questions_in("en"), corpus, settings, WORDS)
    assert mined.left_out == {"no translation into 'en'": 1}
    assert set(mined.question_ids) == {"de:0", "de:1"}
    assert {id_ for id_ in mined.negative_ids if id_.startswith("rocks")} == set()
    of_english = {n for q, n in zip(english.question_ids, english.negative_ids, strict=True)}
    assert set(mined.negative_ids) <= of_english


def test_whole_documents_as_negatives(corpus: Corpus) -> None:
    mined = mine_bm25(
        corpus.questions_in("en")[:1],
        corpus,
        BM25Mining(per_question=2, first_rank=2, granularity="document"),
        WORDS,
    )
    assert set(mined.positive_ids) == {"bees"}
    assert mined.granularity == "document"
    assert set(mined.negative_ids) <= {"copy", "bears", "rocks"}


def test_questions_without_a_negative_are_counted(corpus: Corpus) -> None:
    asked = [replace(corpus.questions[0], text="unknown words")]
    mined = mine_bm25(asked, corpus, BM25Mining(), WORDS)
    assert len(mined) == 0
    assert mined.left_out == {"no negative": 1}


def test_a_question_without_gold_is_an_error(corpus: Corpus) -> None:
    asked = [replace(corpus.questions[0], document_id=None, passage_id=None)]
    with pytest.raises(DataError, match=r"'en:0' \(en\) names no gold passage"):
        mine_bm25(asked, corpus, BM25Mining(), WORDS)


@pytest.mark.parametrize(
    "wrong", [{"per_question": 0}, {"first_rank": 0}, {"granularity": "sentence"}]
)
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=str(next(iter(wrong)))):
        BM25Mining(**wrong)  # type: ignore[arg-type]
