from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from clrelkt.corpora.pairs import SentencePairs
from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.protocol import TextKind
from clrelkt.errors import DataError
from clrelkt.evaluation.translation import TranslationResult, translation_retrieval


def pairs_of(english: Sequence[str], other: Sequence[str]) -> SentencePairs:
    count = len(english)
    return SentencePairs("de", tuple(english), tuple(other), ("x",) * count, ("sentences",) * count)


def encode_as(vectors: dict[str, list[float]]):  # type: ignore[no-untyped-def]
    def encode(texts: Sequence[str], kind: TextKind) -> np.ndarray:
        return np.array([vectors[text] for text in texts], dtype=np.float32)

    return encode


def test_both_directions_by_hand(muse: MuseEncoder) -> None:
    vectors = {
        "a": [1.0, 0.0],
        "b": [0.0, 1.0],
        "c": [0.6, 0.8],
        "A": [1.0, 0.0],
        "B": [0.6, 0.8],
        "C": [0.8, 0.6],
    }
    # To English: A finds a; B finds c, not b; C scores a .8, b .6, c .96. From English: a finds A;
    # b finds B (.8); c finds B (1.0), not C (.96).
    result = translation_retrieval(
        muse, pairs_of(["a", "b", "c"], ["A", "B", "C"]), encode_as(vectors)
    )
    assert result.to_english == pytest.approx(2 / 3)
    assert result.from_english == pytest.approx(2 / 3)
    assert result.pairs == 3
    assert TranslationResult.from_json(result.to_json()) == result


def test_a_tie_is_a_miss(muse: MuseEncoder) -> None:
    vectors = {text: [1.0, 0.0] for text in "abAB"}
    result = translation_retrieval(muse, pairs_of(["a", "b"], ["A", "B"]), encode_as(vectors))
    assert (result.to_english, result.from_english) == (0.0, 0.0)


def test_blocks_do_not_matter(muse: MuseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    english, other = random.normal(size=(2, 50, 8))
    other = english + 0.9 * other
    texts = [f"{side}{n}" for side in "eo" for n in range(50)]
    vectors = np.concatenate([english, other])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = {text: vector.tolist() for text, vector in zip(texts, vectors, strict=True)}
    pairs = pairs_of(texts[:50], texts[50:])
    whole = translation_retrieval(muse, pairs, encode_as(table))
    monkeypatch.setattr("clrelkt.evaluation.translation._BUDGET", 350)
    assert translation_retrieval(muse, pairs, encode_as(table)) == whole
    scores = vectors[50:] @ vectors[:50].T
    assert whole.to_english == np.mean(scores.argmax(1) == np.arange(50))
    assert whole.from_english == np.mean(scores.argmax(0) == np.arange(50))


def test_nothing_to_look_for(muse: MuseEncoder) -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        translation_retrieval(muse, pairs_of([], []))


def test_the_real_encoder_knows_german(muse: MuseEncoder) -> None:
    pairs = pairs_of(
        ["The house is red.", "Where is my dog?", "It will rain tomorrow."],
        ["Das Haus ist rot.", "Wo ist mein Hund?", "Morgen wird es regnen."],
    )
    result = translation_retrieval(muse, pairs)
    assert (result.to_english, result.from_english) == (1.0, 1.0)
