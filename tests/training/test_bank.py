from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clrelkt.corpora import Corpus
from clrelkt.encoders import MuseEncoder, RaggedBatch
from clrelkt.errors import DataError
from clrelkt.training.bank import TextBank, texts_of


def test_texts_of_a_corpus_are_distinct(tiny_corpus: Corpus) -> None:
    questions, candidates = texts_of([tiny_corpus, tiny_corpus])
    assert set(questions) == {question.text for question in tiny_corpus.questions}
    passages = {passage.text for passage in tiny_corpus.passage_by_id.values()}
    assert set(candidates) == {document.text for document in tiny_corpus.documents} | passages
    assert len(set(questions)) == len(questions)
    assert len(set(candidates)) == len(candidates)


def test_vectors_are_the_encoders(tiny_corpus: Corpus, tiny_encoder: MuseEncoder) -> None:
    questions, candidates = texts_of([tiny_corpus])
    bank = TextBank(questions, candidates, tiny_encoder)
    assert len(bank) == len(questions) + len(candidates)
    encode = bank.encode_with(tiny_encoder)
    asked = [questions[5], questions[0], questions[5]]
    np.testing.assert_allclose(encode(asked, "question"), tiny_encoder.encode(asked), atol=1e-6)
    np.testing.assert_allclose(
        encode(candidates, "passage"), tiny_encoder.encode(candidates), atol=1e-6
    )
    assert encode([], "question").shape == (0, tiny_encoder.dimension)


def test_a_text_may_be_question_and_passage(tiny_encoder: MuseEncoder) -> None:
    bank = TextBank(["bees", "wax"], ["honey", "bees"], tiny_encoder)
    assert bank.rows(["wax", "bees"], "question").tolist() == [1, 0]
    assert bank.rows(["bees", "honey"], "passage").tolist() == [3, 2]
    tokens = tiny_encoder.tokenize(["honey", "wax"])
    chosen = bank.select(np.array([2, 1]))
    assert torch.equal(chosen.token_ids, tokens.token_ids)
    assert bank.lengths[[2, 1]].tolist() == tokens.lengths.tolist()


def test_a_text_of_another_run(tiny_encoder: MuseEncoder) -> None:
    bank = TextBank(["bees"], ["honey"], tiny_encoder)
    with pytest.raises(DataError, match="'honey' is none of this run"):
        bank.rows(["bees", "honey"], "question")


def split(batch: RaggedBatch) -> list[list[int]]:
    return [part.tolist() for part in batch.token_ids.split(batch.lengths.tolist())]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_share_of_texts_loses_the_tokens_that_it_loses_among_all(
    tiny_corpus: Corpus, tiny_encoder: MuseEncoder, data: st.DataObject
) -> None:
    questions, candidates = texts_of([tiny_corpus])
    bank = TextBank(questions, candidates, tiny_encoder)
    tokens = tiny_encoder.tokenize(questions, "question"), tiny_encoder.tokenize(candidates)
    texts = [own for batch in tokens for own in split(batch)]
    rows = np.array(data.draw(st.lists(st.integers(0, len(bank) - 1), max_size=8)), dtype=np.int64)
    places = st.lists(st.integers(0, len(rows) - 1), max_size=5) if len(rows) else st.just([])
    share = np.array(data.draw(places), dtype=np.int64)
    assert split(bank.select_on_host(rows)) == [texts[row] for row in rows]
    assert split(bank.select_on_host(rows, share)) == [texts[row] for row in rows[share]]
    dropout = data.draw(st.sampled_from([0.3, 1.0]))
    lessened = split(bank.select_on_host(rows, dropout=dropout, seed=3))
    found = split(bank.select_on_host(rows, share, dropout=dropout, seed=3))
    assert found == [lessened[place] for place in share]
    for row, left in zip(rows, lessened, strict=True):
        whole = iter(texts[row])
        assert all(token in whole for token in left)
        assert (left[0], left[-1]) == (texts[row][0], texts[row][-1])
        assert dropout < 1 or len(left) == min(2, len(texts[row]))
