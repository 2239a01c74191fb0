"""mUSE for a server gives the encoder's vectors, whatever it keeps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from clrelkt.corpora import load_corpus
from clrelkt.encoders import MuseEncoder
from clrelkt.encoders.muse.serving import ServingMuse
from clrelkt.errors import SettingsError


@pytest.fixture(scope="module")
def questions() -> list[str]:
    return [question.text for question in load_corpus("bundled").questions][::7]


def test_vectors_are_the_encoders(muse: MuseEncoder, questions: list[str]) -> None:
    serving = ServingMuse(muse)
    expected = muse.encode(questions)
    for _ in range(2):  # The second time every token is known.
        found = np.concatenate([serving.encode(questions[at : at + 9]) for at in range(0, 90, 9)])
        np.testing.assert_allclose(found, expected[:90], atol=2e-6)
    assert len(serving) == len({t for q in questions[:90] for t in muse.tokenizer([q])[0]})


def test_when_there_is_no_room_it_begins_anew(muse: MuseEncoder, questions: list[str]) -> None:
    serving = ServingMuse(muse, tokens=60)
    sizes = []
    for question in questions[:40]:
        np.testing.assert_allclose(serving.encode([question]), muse.encode([question]), atol=2e-6)
        sizes.append(len(serving))
    assert max(sizes) <= 60
    assert any(later < earlier for earlier, later in pairwise(sizes))


def test_more_tokens_than_there_is_room_for(muse: MuseEncoder, questions: list[str]) -> None:
    serving = ServingMuse(muse, tokens=5)
    np.testing.assert_allclose(
        serving.encode(questions[:20]), muse.encode(questions[:20]), atol=2e-6
    )


def test_less_precision_is_near_enough(muse: MuseEncoder, questions: list[str]) -> None:
    found = ServingMuse(muse, precision="bfloat16").encode(questions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosines = (found * muse.encode(questions)).sum(1)
    assert 0.9999 < cosines.min() < 1 - 1e-8


def test_odd_texts(muse: MuseEncoder) -> None:
    texts = ["", " ", "a", "\x00", "字" * 500]
    np.testing.assert_allclose(ServingMuse(muse).encode(texts), muse.encode(texts), atol=2e-6)


def test_another_precision_is_refused(muse: MuseEncoder) -> None:
    with pytest.raises(SettingsError, match="float32 or bfloat16"):
        ServingMuse(muse, precision="int4")  # type: ignore[arg-type]
