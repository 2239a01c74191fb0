"""How a server encodes questions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tests.server.conftest import running

from clrelkt.errors import SettingsError
from clrelkt.search import Index
from clrelkt.server.questions import question_encoder


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_every_precision_finds_the_same(index: Index, precision: str) -> None:
    question = "¿Quién descubrió la penicilina?"
    encode = question_encoder(index, precision)  # type: ignore[arg-type]
    assert (encode([question]) * index.encode_questions([question])).sum() > 0.9999
    with running(index, encode=encode) as served:
        found = [hit["passage_id"] for hit in served.get("/search", question=question).json["hits"]]
    assert found == [hit.passage_id for hit in index.search(question, by="document")]


def test_other_encoders_encode_by_themselves() -> None:
    def encode_questions(questions: list[str]) -> np.ndarray:
        return np.ones((len(questions), 4), np.float32)

    other = SimpleNamespace(
        encoder=SimpleNamespace(name="other"), encode_questions=encode_questions
    )
    assert question_encoder(other) is encode_questions  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="'other'"):
        question_encoder(other, "bfloat16")  # type: ignore[arg-type]
