from __future__ import annotations

import hashlib

import pytest
import sentencepiece
import torch

from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.tokenizer import SentencePieceTokenizer
from clrelkt.errors import EncoderError

BEGIN, END = 1, 2


@pytest.fixture(scope="module")
def tokenizer(muse: MuseEncoder) -> SentencePieceTokenizer:
    return muse.tokenizer


def test_the_published_model(tokenizer: SentencePieceTokenizer) -> None:
    digest = hashlib.sha256(tokenizer.model).hexdigest()
    assert digest == "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"
    assert tokenizer.pieces == 128_000


def test_marks_stand_around_the_pieces_of_each_text(tokenizer: SentencePieceTokenizer) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    texts = ["Hello world", "สวัสดีครับ", "", "日本語のテキスト"]
    assert tokenizer(texts) == [[BEGIN, *processor.encode(text), END] for text in texts]
    assert tokenizer([""]) == [[BEGIN, END]]


def test_nothing_is_cut_off(tokenizer: SentencePieceTokenizer) -> None:
    (once,) = tokenizer(["water"])
    (often,) = tokenizer(["water " * 30_000])
    assert often == [BEGIN] + once[1:-1] * 30_000 + [END]


def test_restricted_ids_are_places_among_the_rows(tokenizer: SentencePieceTokenizer) -> None:
    (ids,) = tokenizer(["the cat and the dog"])
    rows = torch.tensor(sorted(set(ids)))
    (restricted,) = tokenizer.restricted_to(rows)(["the cat and the dog"])
    assert rows[torch.tensor(restricted)].tolist() == ids


@pytest.mark.parametrize("other", ["the zebra", "the 水", "猫"])
def test_a_token_outside_the_rows_is_refused(tokenizer: SentencePieceTokenizer, other: str) -> None:
    (ids,) = tokenizer(["the cat and the dog"])
    restricted = tokenizer.restricted_to(torch.tensor(sorted(set(ids))))
    with pytest.raises(EncoderError, match=f"'{other}' holds a token outside"):
        restricted(["the cat", other])


@pytest.mark.parametrize("model", [b"", b"no model at all"])
def test_bytes_that_are_no_model(model: bytes) -> None:
    with pytest.raises(EncoderError, match="not a SentencePiece model"):
        SentencePieceTokenizer(model)


def test_half_a_surrogate_pair_is_named(tokenizer: SentencePieceTokenizer) -> None:
    with pytest.raises(EncoderError, match=r"text 1 .*character 2 is half of a surrogate pair"):
        tokenizer(["whole", "ab\ud83d"])
